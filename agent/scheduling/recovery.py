"""Bringing a fresh learner to a version: the newest good snapshot on the way, then the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.errors import SnapshotError
from agent.learning.records import Example, ReplayedUpdate
from agent.learning.snapshots import read_manifest, snapshot_folders
from agent.scheduling.ports import Learner
from memory_store.records import LedgerKind
from memory_store.store import MemoryStore
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)

REPLAY_PAGE = 100


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many updates were replayed, and the digest they led to (empty if none was)."""

    updates: int
    digest: str


async def bring_to(
    learner: Learner,
    store: StoreThreads,
    version: int,
    snapshots: Path,
    progress: Callable[[int], None],
    accept_drift: bool = False,
) -> Replayed:
    """Restores and replays until the learner serves the weights of a version.

    A snapshot that is torn or altered is passed over for the one before it.

    Args:
        learner: with the base checkpoint.
        store: the memory.
        version: of the ledger; 0 needs nothing.
        snapshots: folder of all snapshots.
        progress: called with the number of updates still to be replayed.
        accept_drift: go on where weights come out different from what was recorded.

    Returns:
        What was replayed.

    Raises:
        DriftError: weights come out different, and drift is not accepted.
    """
    line = await store.read(partial(MemoryStore.lineage, version=version))
    restored = await _restore_newest(learner, store, snapshots, line)
    missing = [v for v in line if v > restored]
    progress(len(missing))
    verified_from = await store.read(partial(_last_drift, versions=missing))
    reached, done = "", 0
    for start in range(0, len(missing), REPLAY_PAGE):
        page = missing[start : start + REPLAY_PAGE]
        # What was recorded before an accepted drift holds elsewhere; the drift's own row is right.
        for tolerant, versions in (
            (True, [v for v in page if v < verified_from]),
            (accept_drift, [v for v in page if v >= verified_from]),
        ):
            rows = await store.read(partial(replayed_updates, versions=versions))
            async for _, digest in learner.replay(rows, tolerant):
                reached = digest
                done += 1
                progress(len(missing) - done)
    return Replayed(updates=done, digest=reached)


async def _restore_newest(
    learner: Learner, store: StoreThreads, snapshots: Path, line: Sequence[int]
) -> int:
    """Serves the newest snapshot of these versions; returns its version, 0 if there is none."""
    on_the_way = set(line)
    for version, folder in snapshot_folders(snapshots):
        if version not in on_the_way:
            continue
        try:
            # A database restored from a backup may have learned other things since.
            recorded = await store.read(partial(MemoryStore.update, model_version=version))
            if read_manifest(folder).digest != recorded.digest_after:
                raise SnapshotError(f"the snapshot {folder} is of another history")
            return await learner.restore(folder)
        except SnapshotError as error:
            logger.error("%s; going back to the one before it", error)
    return 0


def _last_drift(store: MemoryStore, versions: Sequence[int]) -> int:
    """The newest of these versions at which drift was accepted; 0 if there is none."""
    drifts = [u for u in store.updates_at(versions) if u.kind is LedgerKind.DRIFT]
    return drifts[-1].model_version if drifts else 0


def replayed_updates(store: MemoryStore, versions: Sequence[int]) -> list[ReplayedUpdate]:
    """Rows of the ledger, with the texts that their steps need."""
    examples: dict[str, Example] = {"": Example(fact_id="", question="", answer="")}

    def example(fact_id: str) -> Example:
        if fact_id not in examples:
            examples[fact_id] = Example.of(store.fact(fact_id))
        return examples[fact_id]

    rows = []
    for update in store.updates_at(versions):
        rehearsed = dict.fromkeys(id_ for step in update.steps for id_ in step.rehearsed_fact_ids)
        rows.append(
            ReplayedUpdate(
                update=update,
                example=example(update.fact_id),
                rehearsed=tuple(map(example, rehearsed)),
            )
        )
    return rows
