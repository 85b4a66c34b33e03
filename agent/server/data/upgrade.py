"""Surveys a memory before an upgrade, and logs the result at each start.

The database is opened read-only, without a check of its schema. So the memory of an older or newer
release can be surveyed, even while a server uses it.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pysqlite3

from agent.config import DATABASE, SNAPSHOTS
from agent.errors import SnapshotError
from agent.snapshots import folder_of, is_snapshot_of, snapshot_folders, verify_snapshot
from agent.teaching.algorithm import ALGORITHM
from memory_store import ledger, schema
from memory_store.connection import Connection
from memory_store.errors import MemoryStoreError, StoreUnusableError
from memory_store.meta import bindings
from memory_store.tables import NOT_SERVED

logger = logging.getLogger(__name__)

# Libraries that affect weights or tokens.
LIBRARIES = ("torch", "transformers", "tokenizers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The state of a memory.

    Attributes:
        model: name or folder of its model; empty if it was never served.
        head: the version that is served.
        snapshot: newest version on its line with a good snapshot; 0 if there is none.
        rows: number of updates after that snapshot.
        algorithms: the algorithms of these updates.
        lacking: names of this release's migrations that the database lacks.
        foreign: names of its migrations that this release does not know.
        never_released: it was made by a version from before the first release.
        libraries: the versions used for its newest update and for its tokenizer.
        tokenizer: digest of its tokenizer's file; empty if it is not bound to one yet.
        operation: the open operation, for people; empty if there is none.
    """

    model: str
    head: int
    snapshot: int
    rows: int
    algorithms: tuple[str, ...]
    lacking: tuple[str, ...]
    foreign: tuple[str, ...]
    never_released: bool
    libraries: Mapping[str, str]
    tokenizer: str
    operation: str

    def __str__(self) -> str:
        """For people, in one line."""
        return "; ".join(self._parts())

    def _parts(self) -> Iterator[str]:
        yield f"version {self.head} of {self.model or 'no model yet'}"
        if self.rows:
            newest = (
                f"the newest is of version {self.snapshot}" if self.snapshot else "there is none"
            )
            yield (
                f"the head has no snapshot ({newest}), and {self.rows} updates since by"
                f" {', '.join(self.algorithms)}"
            )
        elif self.head:
            yield "the head has a snapshot"
        if self.never_released:
            yield "schema from before the first release"
        elif self.lacking:
            yield f"schema before {self.lacking[0]}"
        elif self.foreign:
            yield f"schema of a newer release ({', '.join(self.foreign)})"
        if self.libraries:
            yield ", ".join(f"{name} {version}" for name, version in self.libraries.items())
        if self.tokenizer:
            yield f"tokenizer {self.tokenizer[:12]}"
        if self.operation:
            yield self.operation


def log_standing(data: Path) -> None:
    """Logs the state of a memory, and what it needs, before it is opened."""
    try:
        found = survey(data, verify=False)
    except MemoryStoreError as error:
        logger.warning("%s", error)  # opening it says more
        return
    if found is None:
        return
    logger.info("memory: %s", found)
    for need in needs(found):
        log = logger.warning if need.remedy else logger.info
        log("memory: %s%s", need.what, f": {need.remedy}" if need.remedy else "")


def survey(data: Path, *, verify: bool = True) -> Survey | None:
    """Surveys the memory in a data folder; None if there is none.

    Args:
        data: the folder.
        verify: check the newest snapshot byte by byte, which takes about a second per gigabyte.

    Raises:
        StoreUnusableError: the database cannot be read.
    """
    path = data / DATABASE
    if not path.exists():
        return None
    connection = Connection(path, read_only=True)
    try:
        with connection.transaction():
            return _survey(connection, data / SNAPSHOTS, verify=verify)
    except pysqlite3.OperationalError as error:
        raise StoreUnusableError(
            f"{path} has other tables than this release knows ({error}): look at it with the"
            " release that made it."
        ) from error
    finally:
        connection.close()


def _survey(connection: Connection, snapshots: Path, *, verify: bool) -> Survey:
    head = ledger.head_version(connection)
    line = ledger.lineage(connection, head)
    snapshot = _newest_good(connection, snapshots, set(line), verify=verify)
    since = [version for version in line if version > snapshot]
    bound = bindings(connection)
    return Survey(
        model=bound.get("model_name", ""),
        head=head,
        snapshot=snapshot,
        rows=len(since),
        algorithms=_algorithms(connection, since),
        lacking=tuple(schema.lacking_migrations(connection)),
        foreign=tuple(schema.foreign_migrations(connection)),
        never_released=schema.was_never_released(connection),
        libraries=_libraries(connection, bound),
        tokenizer=bound.get("tokenizer_file", ""),
        operation=_operation(connection),
    )


def _newest_good(connection: Connection, snapshots: Path, line: set[int], *, verify: bool) -> int:
    for version, _ in snapshot_folders(snapshots):
        if version not in line:
            continue
        [row] = connection.execute(
            "SELECT digest_after FROM updates WHERE model_version = ?", [version]
        )
        if is_snapshot_of(snapshots, version, row["digest_after"]):
            with contextlib.suppress(SnapshotError):
                if verify:
                    verify_snapshot(folder_of(snapshots, version))
                return version
    return 0


def _algorithms(connection: Connection, versions: list[int]) -> tuple[str, ...]:
    rows = connection.execute(
        "SELECT DISTINCT algorithm FROM updates WHERE steps <> '[]'"
        " AND model_version IN (SELECT value FROM json_each(?)) ORDER BY algorithm",
        [json.dumps(versions)],
    )
    return tuple(row["algorithm"] for row in rows)


def _libraries(connection: Connection, bound: Mapping[str, str]) -> dict[str, str]:
    newest = ledger.find(connection, ledger.newest_version(connection))
    recorded = dict(newest.environment) if newest else {}
    if "tokenizers_version" in bound:
        recorded.setdefault("tokenizers", bound["tokenizers_version"])
    return {name: recorded[name] for name in LIBRARIES if name in recorded}


def _operation(connection: Connection) -> str:
    rows = connection.execute(
        f"SELECT kind, fact_id FROM operations WHERE {NOT_SERVED} ORDER BY id LIMIT 1"
    )
    if not rows:
        return ""
    return f"a {rows[0]['kind']} {rows[0]['fact_id'] or ''}".strip() + " is not done"


@dataclass(frozen=True, slots=True)
class Need:
    """Something to know or to do before this release serves a memory.

    Attributes:
        what: for people.
        remedy: what to do; empty if nothing.
        serious: the memory cannot be served as it is.
    """

    what: str
    remedy: str = ""
    serious: bool = False


def needs(
    found: Survey, algorithm: str = ALGORITHM, installed: Mapping[str, str] | None = None
) -> Iterator[Need]:
    """Yields what to know or to do, the most serious first.

    Args:
        found: the survey.
        algorithm: of this release.
        installed: the installed versions of the libraries; None looks them up.
    """
    if found.never_released:
        yield Need(
            "its schema is from before the first release, and no release can read it",
            "use another data folder and teach the facts again",
            serious=True,
        )
    elif found.foreign:
        yield Need(
            f"its schema is of a newer release ({', '.join(found.foreign)})",
            "upgrade this program, or go back to the copy next to the database (see"
            " docs/how-to/upgrade.md)",
            serious=True,
        )
    # What follows a "+" is a variant, which the same release replays.
    foreign = [name for name in found.algorithms if name.partition("+")[0] != algorithm]
    if foreign:
        yield Need(
            f"its {found.rows} newest updates have no snapshot and were made by"
            f" {', '.join(found.algorithms)}, while this release makes {algorithm}",
            "start the release that made them once more and stop it with SIGTERM, which writes a"
            " snapshot; or start this one with --accept-drift, which learns them again",
            serious=True,
        )
    elif found.rows:
        yield Need(
            f"its {found.rows} newest updates have no snapshot: a release with another algorithm"
            " could not serve them",
            "before an upgrade: stop the server with SIGTERM, or 'agent snapshots create'",
        )
    changed = [
        f"{name} {version}, here {here}"
        for name, version in found.libraries.items()
        if (here := (installed or _installed()).get(name)) and _release(here) != _release(version)
    ]
    if changed:
        yield Need(
            f"its newest update was made with {'; '.join(changed)}: what is replayed may come out"
            " different"
        )
    if found.lacking and not found.never_released:
        yield Need(
            f"its schema is changed at the next start ({', '.join(found.lacking)}), after a copy"
        )


def _installed() -> dict[str, str]:
    return {name: metadata.version(name) for name in LIBRARIES}


def _release(version: str) -> str:
    """Removes the build from a version such as 2.9.0+cpu."""
    return version.partition("+")[0]
