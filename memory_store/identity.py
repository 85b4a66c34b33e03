"""Which memory a database is, and which folder it was served from last.

Two folders with the same id would each take the other's backups for its own. So the database keeps
what it knows of its folder, and `agent.server.data.identity` compares it at each start: a copy gets
a new id.
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
    """How a data folder is recognized.

    Attributes:
        path: its resolved path.
        inode: of the folder.
        file_system: the identity of the file system that it is on.
        marked_ns: when the inode of its marker file was changed last, in nanoseconds. No tool can
            copy this, and moving the folder within a file system leaves it alone.
    """

    path: str
    inode: int
    file_system: str
    marked_ns: int

    def is_same_folder(self, other: FolderPlace) -> bool:
        """Whether both describe one folder: moved at most, but not a copy."""
        if self.marked_ns == other.marked_ns:
            return True
        # `chmod -R` and `chown -R` change the marker's inode, and leave all of this.
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
        at: when the copy was first served. What was accepted before, the origin may hold too.
    """

    memory_id: str
    at: datetime


def memory_id(connection: Connection) -> str:
    """The id of the memory; empty before it was first served."""
    return meta.noted(connection, _ID) or ""


def place(connection: Connection) -> FolderPlace | None:
    """Where it was served last; None for a backup, and before it was first served."""
    value = meta.noted(connection, _PLACE)
    return FolderPlace(**json.loads(value)) if value else None


def keep_place(connection: Connection, found: FolderPlace) -> None:
    """Notes where it is served now."""
    meta.note(connection, _PLACE, json.dumps(dataclasses.asdict(found)))


def begin(connection: Connection, new_id: str, found: FolderPlace, at: datetime) -> None:
    """Makes this another memory: the backups and exports of the one it was are not its own."""
    if before := memory_id(connection):
        origins = [*_origins(connection), {"memory_id": before, "at": write_time(at)}]
        meta.note(connection, _ORIGINS, json.dumps(origins))
        connection.execute("DELETE FROM places")
    meta.note(connection, _ID, new_id)
    keep_place(connection, found)


def detach(connection: Connection) -> None:
    """Makes the database of a backup: it has the id of who made it, and no place of its own."""
    connection.execute("DELETE FROM places")
    meta.drop(connection, _PLACE)


def origins(connection: Connection) -> list[Origin]:
    """The memories that this one was copied from, one after the other."""
    return [
        Origin(memory_id=origin["memory_id"], at=read_time(origin["at"]))
        for origin in _origins(connection)
    ]


def erasures(connection: Connection) -> int:
    """How often text was erased: a copy made at a lower count may hold text that is erased now."""
    return int(meta.noted(connection, _ERASURES) or 0)


def count_erasure(connection: Connection) -> None:
    """Text was erased."""
    meta.note(connection, _ERASURES, str(erasures(connection) + 1))


def _origins(connection: Connection) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(meta.noted(connection, _ORIGINS) or "[]")
    return found
