"""The private folder of the socket between server and learner.

The path of a socket is limited to 107 bytes, and a data folder or TMPDIR may be longer. So the
first candidate that is short enough is used. A running server holds a lock on its folder (`flock`),
which ends with the process, even after a kill -9. A folder without a lock is a leftover, and the
next server removes it.

Servers from before that held no lock, and their folders had a shorter prefix. Such a folder is
removed if it holds a socket that no process listens on, and has not changed for a day.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.addresses import LONGEST_SOCKET_PATH
from agent.errors import ConfigError

logger = logging.getLogger(__name__)

PREFIX = "agent-learner-"
SOCKET = "learner.sock"
# The characters that `mkdtemp` adds to the prefix.
RANDOM_CHARACTERS = 8
# Folders of servers that held no lock.
UNLOCKED = re.compile(rf"agent-[a-z0-9_]{{{RANDOM_CHARACTERS}}}")
# Such a server may be without a learner for a moment, but not for this long.
UNLOCKED_SECONDS = 86_400.0


def require_socket_folder() -> None:
    """Checks at the start of a server that such a folder can be made.

    Raises:
        ConfigError: no folder can be made.
    """
    with socket_folder():
        pass


@contextmanager
def socket_folder() -> Iterator[Path]:
    """Makes a folder that only this user may enter, and removes it on exit.

    Raises:
        ConfigError: no folder for temporary files is both writable and short enough.
    """
    reasons = []
    for parent in _parents():
        if (
            len(os.fsencode(parent / f"{PREFIX}{'x' * RANDOM_CHARACTERS}" / SOCKET))
            > LONGEST_SOCKET_PATH
        ):
            reasons.append(f"{parent} is too long")
            continue
        try:
            _remove_leftovers(parent)
            _remove_unlocked(parent)
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
        f" {LONGEST_SOCKET_PATH} bytes ({'; '.join(reasons)}): set TMPDIR to a short folder that"
        " can be written to"
    )


def _parents() -> list[Path]:
    """Returns the candidates, in order.

    /tmp comes first: `systemd-tmpfiles` does not remove locked folders, while a user's runtime
    folder is removed at the end of the session.
    """
    named = [tempfile.gettempdir(), "/tmp", os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"]
    return list(dict.fromkeys(path for path in map(Path, named) if path.is_absolute()))


def _new(parent: Path) -> tuple[Path, int]:
    """Makes a folder; returns it and the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another server may have removed it before it was locked.
        with suppress(OSError):
            if os.path.samestat(os.fstat(lock), folder.stat()):
                return folder, lock
        os.close(lock)


def _remove_leftovers(parent: Path) -> None:
    """Removes the folders of this user's dead servers."""
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
            pass  # a running server holds the lock
        finally:
            os.close(lock)


def _remove_unlocked(parent: Path) -> None:
    """Removes the folders of this user's dead servers that never held a lock."""
    for folder in parent.glob("agent-*"):
        try:
            found = folder.lstat()
            if (
                UNLOCKED.fullmatch(folder.name)
                and stat.S_ISDIR(found.st_mode)
                and found.st_uid == os.getuid()
                and time.time() - found.st_mtime > UNLOCKED_SECONDS
                and [file.name for file in folder.iterdir()] == [SOCKET]
                and _nobody_listens(folder / SOCKET)
            ):
                _remove(folder)
        except OSError:
            continue


def _nobody_listens(path: Path) -> bool:
    """Returns whether a socket was left by a process that ended."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return True
        except OSError:  # its queue is full, for example
            return False
    return False


def _remove(folder: Path) -> None:
    """Removes the socket and the folder, if it holds nothing else."""
    with suppress(OSError):
        (folder / SOCKET).unlink(missing_ok=True)
        folder.rmdir()
