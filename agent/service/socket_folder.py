"""The private folder of the socket between server and learner.

A socket's path may have 107 bytes, which a data folder or a long TMPDIR may exceed. So the first
folder that is short enough is taken. While a server lives it holds a lock on its folder (`flock`),
which ends with it, also by kill -9: what nobody holds is a leftover, and is removed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import ConfigError

logger = logging.getLogger(__name__)

PREFIX = "agent-learner-"
SOCKET = "learner.sock"
# Of `sockaddr_un`, the final zero left out.
LONGEST_PATH = 107
# What `mkdtemp` adds to the prefix.
RANDOM_CHARACTERS = 8


def require_socket_folder() -> None:
    """Tries it out, so that a server that cannot have one is refused at its start.

    Raises:
        ConfigError: there is none.
    """
    with socket_folder():
        pass


@contextmanager
def socket_folder() -> Iterator[Path]:
    """A new folder that only this user may enter; removed on leaving.

    Raises:
        ConfigError: no folder for temporary files can be written to, and is short enough.
    """
    reasons = []
    for parent in _parents():
        if len(os.fsencode(parent / f"{PREFIX}{'x' * RANDOM_CHARACTERS}" / SOCKET)) > LONGEST_PATH:
            reasons.append(f"{parent} is too long")
            continue
        try:
            _remove_leftovers(parent)
            folder, lock = _new(parent)
        except OSError as error:
            reasons.append(f"{parent}: {error.strerror}")
            continue
        try:
            yield folder
        finally:
            _remove(folder)
            os.close(lock)
        return
    raise ConfigError(
        "no folder for the socket between server and learner, whose path may have"
        f" {LONGEST_PATH} bytes ({'; '.join(reasons)}): set TMPDIR to a short folder that can be"
        " written to"
    )


def _parents() -> list[Path]:
    """Where to try, in order.

    `systemd-tmpfiles` leaves a locked folder in /tmp alone, but a user's runtime folder ends with
    the session.
    """
    named = [tempfile.gettempdir(), "/tmp", os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"]
    return list(dict.fromkeys(path for path in map(Path, named) if path.is_absolute()))


def _new(parent: Path) -> tuple[Path, int]:
    """A folder of ours and the descriptor that holds it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another server may have found it before it was locked, and removed it.
        with suppress(OSError):
            if os.path.samestat(os.fstat(lock), folder.stat()):
                return folder, lock
        os.close(lock)


def _remove_leftovers(parent: Path) -> None:
    """Removes what this user's dead servers left."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
        except OSError:
            pass  # a server that lives holds it
        finally:
            os.close(lock)


def _remove(folder: Path) -> None:
    """Removes what we put there, and nothing else."""
    with suppress(OSError):
        (folder / SOCKET).unlink(missing_ok=True)
        folder.rmdir()
