"""Backups: writes them, lists them, and removes them when a fact is erased.

A backup gets its name only when it is complete. Its marker says which memory made it, and lists its
files. Only these files are removed, and only from a folder that is not in use, is not the memory's
own, and still has the database of the memory that made it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path

from agent.config import DATABASE
from agent.durable_files import flush
from agent.errors import BackupOvertakenError, ConfigError, FolderInUseError, InvalidFactError
from agent.server.data.folder import LOCK, held
from agent.server.data.identity import (
    BACKUP_LIST,
    MARKER,
    FolderKind,
    Marker,
    database_owner,
    overlap,
    read_marker,
    write_marker,
)
from memory_store import identity
from memory_store.connection import Connection
from memory_store.places import forget_place, list_places, record_place
from memory_store.store import MemoryStore
from memory_store.vocabulary import PlaceKind
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)

UNFINISHED = ".unfinished-"
# A backup starts over if a fact is erased meanwhile; facts are erased one by one.
ATTEMPTS = 5


class Backups:
    """The backups of one memory.

    Args:
        data: the memory's own folder.
        memory_id: its id.
        store: its database.
    """

    def __init__(self, data: Path, memory_id: str, store: StoreThreads) -> None:
        self._data = data
        self._memory_id = memory_id
        self._store = store
        self._being_written: set[Path] = set()
        # Held while a backup gets its name, and while all are removed, so that none is missed.
        self._naming = asyncio.Lock()
        self._tasks: set[asyncio.Task[int]] = set()

    async def write(self, target: Path, copy_files: Callable[[Path], None]) -> int:
        """Writes a backup.

        Args:
            target: absolute path of the new folder.
            copy_files: copies the files other than the database into a folder.

        Returns:
            The model version that it holds.

        Raises:
            BackupOvertakenError: facts were erased in each attempt.
            InvalidFactError: the folder cannot be used.
            StoreUnusableError: the database cannot be copied.
        """
        # Continues if the caller is cancelled: an incomplete folder must be removed.
        writing = asyncio.create_task(self._write(target, copy_files))
        self._tasks.add(writing)
        writing.add_done_callback(self._tasks.discard)
        return await asyncio.shield(writing)

    async def _write(self, target: Path, copy_files: Callable[[Path], None]) -> int:
        final = await asyncio.to_thread(self._checked, target)
        try:
            for _ in range(ATTEMPTS):
                version = await self._attempt(final, copy_files)
                if version is not None:
                    return version
        except OSError as error:
            raise InvalidFactError(
                "folder", f"cannot write {final}: {error.strerror or error}"
            ) from error
        raise BackupOvertakenError(
            "Facts were erased while the backup was written, and it must not keep their text:"
            " try again."
        )

    async def _attempt(self, final: Path, copy_files: Callable[[Path], None]) -> int | None:
        """Returns the copied version; None if a text was erased meanwhile, which the copy has."""
        unfinished = final.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
        self._being_written.add(unfinished)
        try:
            # Recorded first, so that an erase finds it after a crash.
            await self._record(unfinished)
            await asyncio.to_thread(self._begin, unfinished)
            version, erasures = await asyncio.to_thread(self._copy_database, unfinished)
            await asyncio.to_thread(copy_files, unfinished)
            await asyncio.to_thread(self._finish, unfinished)
            async with self._naming:
                now = await self._store.read(lambda store: identity.erasures(store.connection))
                if now != erasures:
                    return None
                await self._record(final)
                unfinished.rename(final)
            remember_backup(self._data, final)
            return version
        finally:
            await asyncio.to_thread(shutil.rmtree, unfinished, ignore_errors=True)
            self._being_written.discard(unfinished)
            await self._forget(unfinished)

    async def remove_all(self, *, forget_missing: bool = True) -> list[str]:
        """Removes every backup: each may hold a text that was erased.

        Args:
            forget_missing: delete the records of missing ones, after reporting them once.

        Returns:
            The remaining ones, with the reasons, for people.
        """
        left: dict[str, list[Path]] = {}
        async with self._naming:
            places = [
                Path(place.path)
                for place in await self._store.read(list_places)
                if place.kind is PlaceKind.BACKUP
            ]
            # One inside another goes first.
            for folder in sorted(places, key=lambda folder: len(folder.parts), reverse=True):
                if folder in self._being_written:
                    continue  # it will notice the erasure, and start over
                outcome = await asyncio.to_thread(
                    remove_backup, folder, self._memory_id, self._data
                )
                if outcome is Outcome.REMOVED or (outcome is Outcome.MISSING and forget_missing):
                    await self._forget(folder)
                if outcome is Outcome.REMOVED:
                    logger.info("removed the backup %s: it may hold an erased fact", folder)
                else:
                    left.setdefault(outcome, []).append(folder)
        return [f"{_listed(folders)}: {reason}" for reason, folders in left.items()]

    def _checked(self, target: Path) -> Path:
        """Returns the folder to make, with links resolved.

        Raises:
            InvalidFactError: it cannot be a new folder, or would be part of the memory's own.
        """
        final = new_folder_path(target)
        above = next(each for each in final.parents if each.exists())
        if above.is_dir() and any(each.samefile(self._data) for each in (above, *above.parents)):
            raise InvalidFactError(
                "folder", f"{final} is inside the data folder: name one outside of it"
            )
        return final

    def _begin(self, unfinished: Path) -> None:
        unfinished.mkdir(mode=0o700, parents=True)
        marker = Marker(kind=FolderKind.UNFINISHED, memory_id=self._memory_id)
        write_marker(unfinished, marker)

    def _copy_database(self, unfinished: Path) -> tuple[int, int]:
        """Copies it over a separate connection; returns its version and number of erasures."""
        copy = unfinished / DATABASE
        with MemoryStore.open(self._data / DATABASE, read_only=True) as store:
            store.connection.backup(copy)
        connection = Connection(copy, must_exist=True)
        try:
            with connection.transaction():
                identity.detach(connection)
            copied = MemoryStore(connection)
            return copied.model_version(), identity.erasures(connection)
        finally:
            connection.close()

    def _finish(self, unfinished: Path) -> None:
        """Flushes all files, and lists them in the marker."""
        files = [each for each in unfinished.rglob("*") if each.is_file() and each.name != MARKER]
        for file in files:
            flush(file)
        names = sorted(str(file.relative_to(unfinished)) for file in files)
        marker = Marker(kind=FolderKind.BACKUP, memory_id=self._memory_id, files=tuple(names))
        write_marker(unfinished, marker)

    async def _record(self, folder: Path) -> None:
        await self._store.write(
            lambda store: record_place(store, PlaceKind.BACKUP, str(folder), store.model_version())
        )

    async def _forget(self, folder: Path) -> None:
        await self._store.write(partial(forget_place, kind=PlaceKind.BACKUP, path=str(folder)))


class Outcome(StrEnum):
    """The result of removing a backup. The value explains to people why it remains."""

    REMOVED = "removed"
    MISSING = "not there any more (if it was moved, or its disk is not mounted, it has the text)"
    OWN = "it is the memory's own folder, or above or below it"
    UNMARKED = "nothing in it says which memory made it"
    OTHER = "it belongs to another memory now"
    IN_USE = "it is in use"
    UNREADABLE = "its database cannot be read"
    FAILED = "it could not be removed"


def remove_backup(folder: Path, memory_id: str, own: Path) -> Outcome:
    """Removes the files of a backup that its marker names, if this memory made it.

    Args:
        folder: of the backup.
        memory_id: of this memory.
        own: this memory's own folder.
    """
    try:
        folder = folder.resolve(strict=True)
        if overlap(folder, own):
            return Outcome.OWN
        marker = read_marker(folder)
        if (refusal := _refusal(marker, memory_id)) is not None:
            return refusal
        with held(folder):
            # Before this lock, a server may have made it a memory of its own.
            marker = read_marker(folder)
            if (refusal := _refusal(marker, memory_id)) is not None or marker is None:
                return refusal or Outcome.OTHER
            database = folder / DATABASE
            owner = database_owner(database) if database.exists() else memory_id
            if owner != memory_id and marker.kind is FolderKind.BACKUP:
                return Outcome.UNREADABLE if owner is None else Outcome.OTHER
            _remove_files(folder, marker)
    except (FileNotFoundError, NotADirectoryError):
        return Outcome.MISSING
    except FolderInUseError:
        return Outcome.IN_USE
    except (OSError, ConfigError) as error:
        logger.error("cannot remove the backup %s: %s", folder, error)
        return Outcome.FAILED
    return Outcome.REMOVED


def _refusal(marker: Marker | None, memory_id: str) -> Outcome | None:
    if marker is None:
        return Outcome.UNMARKED
    backups = (FolderKind.BACKUP, FolderKind.UNFINISHED)
    if marker.memory_id != memory_id or marker.kind not in backups:
        return Outcome.OTHER
    return None


def _remove_files(folder: Path, marker: Marker) -> None:
    """Removes the files of a backup, and the folder unless it has others.

    The marker goes last, so that an interrupted removal can be repeated.
    """
    database = [f"{DATABASE}{ending}" for ending in ("", "-wal", "-shm", "-journal")]
    names = [*database, *marker.files]
    if marker.kind is FolderKind.UNFINISHED:
        names += _written_so_far(folder)
    folders: set[Path] = set()
    for name in names:
        file = folder / name
        # Never through a link, or outside the folder.
        if file.parent.resolve() == file.parent and file.is_relative_to(folder):
            file.unlink(missing_ok=True)
            folders.update(each for each in file.parents if each != folder)
    below = [each for each in folders if each.is_relative_to(folder)]
    for each in sorted(below, key=lambda each: len(each.parts), reverse=True):
        with suppress(OSError):  # something else is in it, or it is gone
            each.rmdir()
    for name in (LOCK, MARKER):
        (folder / name).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError:
        logger.warning("%s has files that no backup wrote: they stay there", folder)


def _written_so_far(folder: Path) -> list[str]:
    """Returns the files of an incomplete backup, whose folder nothing else has used."""
    return [
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if not file.is_dir() and file.name not in (LOCK, MARKER)
    ]


def new_folder_path(target: Path) -> Path:
    """Returns the path of a folder to make, with links resolved.

    Raises:
        InvalidFactError: it is relative, not a path, or exists already.
    """
    if not target.is_absolute():
        raise InvalidFactError("folder", "must be an absolute path on the server's machine")
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in str(target)):
        # A list with one path on each line would contain it as several.
        raise InvalidFactError("folder", "must not contain line breaks or control characters")
    try:
        final = target.parent.resolve() / target.name
        taken = final.exists() or final.is_symlink()
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidFactError("folder", f"is not a path: {error}") from error
    if taken:
        raise InvalidFactError("folder", f"{final} exists already: name a new one")
    return final


def _listed(folders: list[Path]) -> str:
    """Names some folders, for people."""
    shown = ", ".join(map(str, folders[:5]))
    more = f" and {len(folders) - 5} more" if len(folders) > 5 else ""
    return f"the backup{'s' if len(folders) > 1 else ''} {shown}{more}"


def remember_backup(data: Path, backup: Path) -> None:
    """Adds a backup to the list of a data folder, newest last.

    The list helps when the database cannot be read.
    """
    try:
        with (data / BACKUP_LIST).open("a", encoding="utf-8") as file:
            file.write(f"{backup}\n")
    except OSError as error:
        logger.warning("%s is not in the list of backups: %s", backup, error)


def newest_backup(data: Path) -> Path | None:
    """Returns the newest backup that still exists where it was written."""
    try:
        lines = (data / BACKUP_LIST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((Path(line) for line in reversed(lines) if (Path(line) / DATABASE).is_file()), None)
