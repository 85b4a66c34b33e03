"""The data folder: private, and locked by one server at a time."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from agent.config import DATABASE
from agent.errors import ConfigError, FolderInUseError

logger = logging.getLogger(__name__)

LOCK = "lock"
PRIVATE = 0o700


def make_private(folder: Path) -> None:
    """Makes the folder if it is missing, and removes the permissions of other users.

    Permissions change only for an empty folder or a data folder, not for a home folder or `/tmp`
    that was named by mistake.

    Raises:
        ConfigError: it cannot be used, or is open to others and not a data folder.
    """
    try:
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        if not is_open_to_others(folder):
            return
        if any(folder.iterdir()) and not (folder / DATABASE).exists():
            raise ConfigError(
                f"the data folder {folder} is open to other users, and holds other files: name a"
                f" folder of its own with --data, or 'chmod 700 {folder}' if you mean it"
            )
        folder.chmod(PRIVATE)
        logger.warning("the data folder %s was open to other users: its mode is now 700", folder)
    except PermissionError as error:
        raise ConfigError(
            f"cannot use the data folder {folder} ({error.strerror}): it must belong to the user"
            " that the server runs as, with mode 700; or name another one with --data"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"cannot use the data folder {folder} ({error.strerror}): name another one with --data"
        ) from error


def is_open_to_others(folder: Path) -> bool:
    """Whether other users have any permission on the folder."""
    return bool(folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Locks the folder for this process.

    Raises:
        FolderInUseError: another server has locked it.
        ConfigError: it cannot be written to.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise FolderInUseError(
            f"the data folder {folder} is in use by another server:"
            " stop that one, or choose another folder with --data"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot write to the data folder {folder} ({error.strerror}): name another one with"
            " --data"
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether a server runs on the folder now."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False
