"""Which weights can still be reached: the one place that knows.

The weights of a version are reached from a snapshot on its line, or from the base checkpoint, by
replaying the rows that follow. A row cannot be replayed if another algorithm made it, if its policy
was not recorded, or if the text of a fact that it needs was erased. Whether a row that can be
replayed comes out as recorded is known only afterwards; see `recovery.bring_to`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.errors import SnapshotError
from agent.snapshots import folder_of, is_snapshot_of, snapshot_folders, verify_snapshot
from memory_store import ledger, replay
from memory_store.replay import Obstacle
from memory_store.store import MemoryStore
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How near to a version one can come.

    Attributes:
        wanted: the version.
        version: the nearest on its line that can be reached, at most `wanted`.
        snapshot: the version whose snapshot is restored first; 0: the base checkpoint is.
        rows: versions whose rows are then replayed, in order.
        obstacle: why it is not `wanted`; None if it is.
    """

    wanted: int
    version: int
    snapshot: int
    rows: Sequence[int]
    obstacle: Obstacle | None

    def __str__(self) -> str:
        """For people, a clause."""
        start = f"the snapshot of version {self.snapshot}" if self.snapshot else "the base model"
        if self.obstacle is None:
            return f"version {self.version} can be reached from {start}"
        return (
            f"version {self.wanted} cannot be reached: {self.obstacle}; the nearest that can be is"
            f" version {self.version}, from {start}"
        )


async def nearest_reachable(
    store: StoreThreads,
    snapshots: Path,
    wanted: int,
    algorithm: str,
    *,
    passed_over: Collection[int] = (),
    verify: bool = False,
) -> Reach:
    """The nearest version to the one that is wanted whose weights can be reached.

    Args:
        store: the memory.
        snapshots: folder of all snapshots.
        wanted: version of the ledger; 0 can always be reached.
        algorithm: that the learner replays; empty: any.
        passed_over: versions of snapshots that turned out to be damaged.
        verify: check every byte of the snapshot, not only that it is of this history.
    """
    line = await store.read(lambda store: ledger.lineage(store.connection, version=wanted))
    damaged = set(passed_over)
    while True:
        snapshot = await _newest_snapshot(store, snapshots, line, damaged)
        if not snapshot or not verify:
            break
        try:
            await asyncio.to_thread(verify_snapshot, folder_of(snapshots, snapshot))
            break
        except SnapshotError as error:
            logger.error("%s; going back to the one before it", error)
            damaged.add(snapshot)
    rows = [version for version in line if version > snapshot]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        page = rows[start : start + ROWS_AT_ONCE]
        obstacle = await store.read(
            partial(replay.first_obstacle, versions=page, algorithm=algorithm)
        )
        if obstacle is not None:
            rows = rows[: rows.index(obstacle.version)]
            return Reach(
                wanted=wanted,
                version=rows[-1] if rows else snapshot,
                snapshot=snapshot,
                rows=rows,
                obstacle=obstacle,
            )
    return Reach(wanted=wanted, version=wanted, snapshot=snapshot, rows=rows, obstacle=None)


async def _newest_snapshot(
    store: StoreThreads, snapshots: Path, line: Sequence[int], passed_over: Collection[int]
) -> int:
    """Version of the newest snapshot that claims to be of this line; 0 if there is none."""
    on_line = set(line)
    for version, folder in snapshot_folders(snapshots):
        if version not in on_line or version in passed_over:
            continue
        recorded = await store.read(partial(MemoryStore.update, model_version=version))
        # A database restored from a backup may have learned other things since.
        if is_snapshot_of(snapshots, version, recorded.digest_after):
            return version
        logger.error("the snapshot %s is torn, or of another history; it is passed over", folder)
    return 0
