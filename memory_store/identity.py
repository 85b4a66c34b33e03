"""Which memory a database is, and which folder it was served from last.

Two folders with the same id would treat each other's backups as their own. So the database records
its folder, and `agent.server.data.identity` compares it at each start: a copy gets a new id.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import datetime

from memory_store import meta
from memory_store.connection import Connection
from memory_store.encoding import read_time, write_time

_ID, _PLACE, _ORIGINS, _ERASURES = "memory_id", "memory_place", "copied_from", "erasures"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderPlace:
    """Identifies a data folder.

    Attributes:
        path: its resolved path.
        inode: of the folder.
        file_system: the identity of the file system that it is on.
        marked_ns: the time of the last change of its marker file's inode, in nanoseconds. No tool
            can copy this, and moving the folder within a file system does not change it.
    """

    path: str
    inode: int
    file_system: str
    marked_ns: int

    def is_same_folder(self, other: FolderPlace) -> bool:
        """Whether both describe one folder: moved at most, but not a copy."""
        if self.marked_ns == other.marked_ns:
            return True
        # `chmod -R` and `chown -R` change the marker's inode, but none of these.
        return (self.path, self.inode, self.file_system) == (
            other.path,
            other.inode,
            other.file_system,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The memory that this one was copied from.

    Attributes:
        memory_id: its id.
        at: when the copy was first served. The origin may also hold what was accepted before.
    """

    memory_id: str
    at: datetime


def memory_id(connection: Connection) -> str:
    """The id of the memory; empty before it was first served."""
    return meta.noted(connection, _ID) or ""


def place(connection: Connection) -> FolderPlace | None:
    """The folder it was last served from; None for a backup, and before it was first served."""
    value = meta.noted(connection, _PLACE)
    return FolderPlace(**json.loads(value)) if value else None


def keep_place(connection: Connection, found: FolderPlace) -> None:
    """Records the folder it is served from now."""
    meta.note(connection, _PLACE, json.dumps(dataclasses.asdict(found)))


def begin(connection: Connection, new_id: str, found: FolderPlace, at: datetime) -> None:
    """Makes this another memory, without the backups and exports of the previous one."""
    if before := memory_id(connection):
        origins = [*_origins(connection), {"memory_id": before, "at": write_time(at)}]
        meta.note(connection, _ORIGINS, json.dumps(origins))
        connection.execute("DELETE FROM places")
    meta.note(connection, _ID, new_id)
    keep_place(connection, found)


def detach(connection: Connection) -> None:
    """Makes this the database of a backup: with the id of its origin, but without a place."""
    connection.execute("DELETE FROM places")
    meta.drop(connection, _PLACE)


def origins(connection: Connection) -> list[Origin]:
    """The memories that this one was copied from, in order."""
    return [
        Origin(memory_id=origin["memory_id"], at=read_time(origin["at"]))
        for origin in _origins(connection)
    ]


def erasures(connection: Connection) -> int:
    """The number of erasures. A copy from a lower number may contain text that is erased now."""
    return int(meta.noted(connection, _ERASURES) or 0)


def count_erasure(connection: Connection) -> None:
    """Counts an erasure of text."""
    meta.note(connection, _ERASURES, str(erasures(connection) + 1))


def _origins(connection: Connection) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(meta.noted(connection, _ORIGINS) or "[]")
    return found
