"""Finds the memory that a folder belongs to, and whether a data folder is a copy of another.

A marker file has the id of the folder's memory. The database has the same id, and the folder it was
last served from (`memory_store.identity`). These do not match in a copy. When a copy starts, it
becomes another memory with a new id, so that no two folders treat each other's backups as their
own. A data folder that is a backup, was restored, or was moved to another file system is a copy.
Moving or renaming a folder within a file system makes no copy.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import secrets
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pysqlite3

from agent.config import DATABASE, SNAPSHOTS
from agent.durable_files import flush
from agent.errors import ConfigError
from memory_store import identity
from memory_store.identity import FolderPlace
from memory_store.store import MemoryStore

logger = logging.getLogger(__name__)

MARKER = "memory.json"
# Backups of a data folder, one path on each line: see `agent.server.data.backups`.
BACKUP_LIST = "backups.txt"


class FolderKind(StrEnum):
    """What a folder with a marker is."""

    MEMORY = "memory"
    """A data folder."""
    BACKUP = "backup"
    """A finished backup."""
    UNFINISHED = "unfinished backup"
    """An incomplete backup."""
    SNAPSHOTS = "snapshots"
    """A folder of snapshots outside the data folder, which links to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """The content of a folder's marker.

    Attributes:
        kind: what the folder is.
        memory_id: of the memory that made it.
        files: of a backup: its files, relative to the folder.
    """

    kind: FolderKind
    memory_id: str
    files: tuple[str, ...] = ()


def read_marker(folder: Path) -> Marker | None:
    """Returns the marker of a folder; None if it is missing or invalid."""
    try:
        fields = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return Marker(
            kind=FolderKind(fields["kind"]),
            memory_id=str(fields["memory_id"]),
            files=tuple(map(str, fields.get("files", ()))),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_marker(folder: Path, marker: Marker) -> None:
    """Writes the marker of a folder atomically and durably."""
    temporary = folder / f".{MARKER}-{secrets.token_hex(4)}"
    temporary.write_text(json.dumps(dataclasses.asdict(marker), indent=1), encoding="utf-8")
    flush(temporary)
    temporary.replace(folder / MARKER)
    flush(folder)


def place_of(folder: Path) -> FolderPlace:
    """Returns what identifies a marked folder."""
    found = folder.stat()
    # The id of the file system, if it has one: device numbers may change with a restart.
    file_system = os.statvfs(folder).f_fsid or found.st_dev
    return FolderPlace(
        path=str(folder.resolve()),
        inode=found.st_ino,
        file_system=f"{file_system:x}",
        marked_ns=(folder / MARKER).stat().st_ctime_ns,
    )


def require_own_files(data: Path) -> None:
    """Checks a data folder before its database is opened, which would create a missing one.

    Raises:
        ConfigError: the database of a memory is missing, or two folders share it.
    """
    database = data / DATABASE
    if database.is_symlink():
        raise ConfigError(
            f"{database} is a link to {database.resolve()}, so that another folder has the same"
            " database: name the folder that it is in with --data, or copy it with 'cp -L'"
        )
    if not database.exists():
        if (data / MARKER).exists():
            raise ConfigError(
                f"{database} is missing, although a memory was served from {data}: restore a"
                f" backup, or remove {data / MARKER} to begin an empty memory"
            )
    elif database.stat().st_nlink > 1:
        raise ConfigError(
            f"{database} is a hard link, so that another folder has the same database: make a copy"
            " of its own ('cp' without -l)"
        )


def settle(store: MemoryStore, data: Path) -> str:
    """Identifies the memory of a data folder at each start; a copy becomes another memory.

    Call `claim_snapshots` after the commit.

    Args:
        store: the database of the folder; one transaction.
        data: the folder, which this process has locked.

    Returns:
        The id of the memory.

    Raises:
        ConfigError: its snapshots are those of another memory.
        OSError: the folder cannot be written to.
    """
    with store.transaction():
        known = identity.memory_id(store.connection)
        before = identity.place(store.connection)
        if (
            known
            and before
            and read_marker(data) == Marker(kind=FolderKind.MEMORY, memory_id=known)
        ):
            found = place_of(data)
            if before.is_same_folder(found):
                _require_unclaimed(data / SNAPSHOTS, known)
                if found != before:
                    identity.keep_place(store.connection, found)
                return known
        new = secrets.token_hex(16)
        _require_unclaimed(data / SNAPSHOTS, new)
        # The marker first: without the commit they do not match, so the next start repeats this.
        write_marker(data, Marker(kind=FolderKind.MEMORY, memory_id=new))
        identity.begin(store.connection, new, place_of(data), store.now())
        if known:
            (data / BACKUP_LIST).unlink(missing_ok=True)
            logger.warning(
                "%s is a copy of memory %s, and is memory %s from now on: backups made before are"
                " not its own",
                *(data, known[:8], new[:8]),
            )
    return new


def claim_snapshots(data: Path, memory_id: str) -> None:
    """Marks snapshots outside the data folder as this memory's.

    Call it only once the memory's id is durable: otherwise a start that is killed would leave them
    with an id that no memory has.

    Args:
        data: the folder of the memory, which may link to its snapshots.
        memory_id: as `settle` returned it.

    Raises:
        ConfigError: the snapshots are those of another memory.
        OSError: their folder cannot be written to.
    """
    snapshots = data / SNAPSHOTS
    _require_unclaimed(snapshots, memory_id)
    if snapshots.is_symlink() and read_marker(snapshots) is None:
        snapshots.resolve().mkdir(mode=0o700, parents=True, exist_ok=True)
        write_marker(snapshots, Marker(kind=FolderKind.SNAPSHOTS, memory_id=memory_id))


def _require_unclaimed(snapshots: Path, memory_id: str) -> None:
    """Checks that the snapshots do not belong to another memory.

    A copy of a data folder may link to the same snapshots: then two memories would remove each
    other's.

    Raises:
        ConfigError: they do.
    """
    marker = read_marker(snapshots) if snapshots.is_symlink() else None
    if marker not in (None, Marker(kind=FolderKind.SNAPSHOTS, memory_id=memory_id)):
        raise ConfigError(
            f"{snapshots} is a link to {snapshots.resolve()}, which belongs to another memory, or"
            " to the one that this folder is a copy of: remove the link. The weights are then"
            " made from the ledger"
        )


def overlap(one: Path, other: Path) -> bool:
    """Whether two folders are the same, or one contains the other. Links are followed.

    Args:
        one: exists.
        other: exists.
    """
    chain_of_one, chain_of_other = _chain(one), _chain(other)
    return chain_of_one[0] in chain_of_other or chain_of_other[0] in chain_of_one


def _chain(folder: Path) -> list[tuple[int, int]]:
    """Returns device and inode of a folder, and of each one above it."""
    resolved = folder.resolve()
    statuses = [each.stat() for each in (resolved, *resolved.parents)]
    return [(status.st_dev, status.st_ino) for status in statuses]


def database_owner(database: Path) -> str | None:
    """Returns the memory's id of a database that is not in use; None if it cannot be read.

    Makes and changes nothing, not even the log that opening a database usually makes.
    """
    uri = f"{database.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        connection = pysqlite3.connect(uri, uri=True)
        try:
            row = connection.execute("SELECT value FROM meta WHERE key = 'memory_id'").fetchone()
        finally:
            connection.close()
    except pysqlite3.Error:
        return None
    return str(row[0]) if row else ""
