"""Bringing a fresh learner to a version: the newest good snapshot on the way, then the ledger.

Where the operator accepts that weights come out different here, that is written down too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.errors import SnapshotError
from agent.learning.records import Example, ReplayedUpdate
from agent.learning.snapshots import read_manifest, snapshot_folders
from agent.scheduling.ports import Learner
from agent.scheduling.recording import probe_retention, row_without_steps
from memory_store import taking_back
from memory_store.records import HELD, Update
from memory_store.store import MemoryStore
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)

REPLAY_PAGE = PROBE_PAGE = 100


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

    A snapshot that is torn or altered is passed over for the one before it. Rows from before an
    accepted drift, of this line or of the served one, may come out different: what was recorded of
    them holds elsewhere.

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
        # The row at which drift was accepted says what must come out.
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


async def adopt(learner: Learner, store: StoreThreads, row: Update) -> None:
    """Gives a learner the version of a row without steps; it has the weights already."""
    rows = await store.read(partial(replayed_updates, versions=[row.model_version]))
    async for _ in learner.replay(rows):
        pass


async def note_drift(
    learner: Learner,
    store: StoreThreads,
    version: int,
    digest: str,
    environment: Mapping[str, str],
) -> int:
    """Writes down weights that differ from the recorded ones, and what every fact does on them.

    Args:
        learner: that replayed with drift accepted.
        store: the memory.
        version: that was replayed.
        digest: of the weights that came out.
        environment: fingerprint of the learner.

    Returns:
        The version that is served: `version` itself if nothing differs.
    """
    recorded = await store.read(partial(MemoryStore.update, model_version=version))
    if digest == recorded.digest_after:
        return version
    end = row_without_steps(version, recorded.digest_after, digest, environment)
    row = await store.write(partial(taking_back.record_drift, end=end))
    await adopt(learner, store, row)
    await _probe_all(learner, store)
    return row.model_version


async def _probe_all(learner: Learner, store: StoreThreads) -> None:
    position = 0
    while page := await store.read(
        partial(MemoryStore.facts, after_position=position, limit=PROBE_PAGE, states=HELD)
    ):
        for fact in page:
            row, version = await probe_retention(learner, fact)
            await store.write(
                partial(MemoryStore.record_probes, probes_=[row], model_version=version)
            )
        position = page[-1].position


def _last_drift(store: MemoryStore, versions: Sequence[int]) -> int:
    """The newest version at which drift was accepted, among these and the served; 0 if none."""
    served = store.lineage(store.model_version())
    drifts = store.drifts([*versions, *served])
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
