"""Bringing a fresh learner to a version: the newest good snapshot on the way, then the ledger.

Where the operator accepts that weights come out different here, that is written down too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.errors import DriftError, SnapshotError, UnreachableError
from agent.server.loop.reachability import Reach, nearest_reachable
from agent.snapshots import folder_of
from agent.teaching.attempt import row_without_steps
from agent.teaching.learner_protocol import Learner
from agent.teaching.procedure import probe_retention
from agent.teaching.types import Example, LearnerDescription, ReplayedUpdate
from memory_store import fresh_start, ledger
from memory_store.facts import count_by_state
from memory_store.store import MemoryStore
from memory_store.vocabulary import HELD, FactState, Update
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
    *,
    algorithm: str = "",
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
        algorithm: that the learner replays; empty: not known.

    Returns:
        What was replayed.

    Raises:
        UnreachableError: a row cannot be replayed, or comes out different and drift is not
            accepted. The learner then serves the version before it, unless none was replayed.
    """
    reach = await _restore_nearest(learner, store, version, snapshots, algorithm)
    if reach.obstacle is not None:
        raise UnreachableError(str(reach), reach.version)
    missing = reach.rows
    progress(len(missing))
    verified_from = await store.read(partial(_last_drift, versions=missing))
    reached, at, done = "", reach.snapshot, 0
    for start in range(0, len(missing), REPLAY_PAGE):
        page = missing[start : start + REPLAY_PAGE]
        # The row at which drift was accepted says what must come out.
        for tolerant, versions in (
            (True, [v for v in page if v < verified_from]),
            (accept_drift, [v for v in page if v >= verified_from]),
        ):
            rows = await store.read(partial(replayed_updates, versions=versions))
            try:
                async for replayed, digest in learner.replay(rows, tolerant):
                    at, reached = replayed, digest
                    done += 1
                    progress(len(missing) - done)
            except DriftError as error:
                raise UnreachableError(str(error), at, at, reached) from error
    return Replayed(updates=done, digest=reached)


@dataclass(frozen=True, slots=True)
class Head:
    """The version that is served after a start, and how many updates were replayed."""

    version: int
    replayed: int


async def bring_to_head(
    learner: Learner,
    store: StoreThreads,
    description: LearnerDescription,
    snapshots: Path,
    progress: Callable[[int], None],
    accept_drift: bool,
) -> Head:
    """Brings a fresh learner to what is to be served: the head of the ledger, if it can be reached.

    Otherwise, if that is accepted, to the nearest version that can be, and what followed it is
    queued again. It need not be accepted where only the text of an erased fact is missing: whoever
    erased it asked for weights without it.

    Raises:
        UnreachableError: the head cannot be reached, and drift is not accepted.
    """
    version = await store.read(MemoryStore.model_version)
    algorithm, environment = description.algorithm, description.environment
    reach = await nearest_reachable(store, snapshots, version, algorithm, verify=True)
    if reach.obstacle is not None and not (accept_drift or reach.obstacle.erased):
        raise UnreachableError(_what_to_do(reach), reach.version)
    replayed = await bring_to(
        *(learner, store, reach.version, snapshots, progress, accept_drift), algorithm=algorithm
    )
    if reach.obstacle is not None:
        version = await _start_over(learner, store, reach, replayed.digest, description)
    elif replayed.digest:
        version = await note_drift(learner, store, version, replayed.digest, environment)
    return Head(version, replayed.updates)


def _what_to_do(reach: Reach) -> str:
    start = f"snapshot {reach.snapshot}" if reach.snapshot else "the base model"
    return (
        f"version {reach.wanted} cannot be served: {reach.obstacle}, and no snapshot holds a later"
        f" version than {reach.version} (reached from {start}). Either start the release that made"
        " it once more and stop it in good order (SIGTERM), which leaves a snapshot of its newest"
        " version, and then start this one. Or start with --accept-drift: version"
        f" {reach.version} is served, and what followed it is learned again by this release."
        " Nothing is lost either way"
    )


async def _restore_nearest(
    learner: Learner, store: StoreThreads, version: int, snapshots: Path, algorithm: str
) -> Reach:
    """Restores the snapshot that a version is reached from, if that version can be reached."""
    damaged: set[int] = set()
    while True:
        reach = await nearest_reachable(store, snapshots, version, algorithm, passed_over=damaged)
        if reach.obstacle is not None or not reach.snapshot:
            return reach
        try:
            await learner.restore(folder_of(snapshots, reach.snapshot))
        except SnapshotError as error:
            logger.error("%s; going back to the one before it", error)
            damaged.add(reach.snapshot)
        else:
            return reach


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
    row = await store.write(partial(fresh_start.record_drift, end=end))
    await adopt(learner, store, row)
    await _probe_all(learner, store)
    return row.model_version


async def _start_over(
    learner: Learner,
    store: StoreThreads,
    reach: Reach,
    digest: str,
    description: LearnerDescription,
) -> int:
    """Serves the nearest version, which the learner is at, and queues again what followed it.

    Returns:
        The version that is served: that of a row which says so.
    """
    recorded = description.base_digest
    if reach.version:
        update = await store.read(partial(MemoryStore.update, model_version=reach.version))
        recorded = update.digest_after
    end = row_without_steps(reach.version, recorded, digest or recorded, description.environment)
    async with store.switching():
        row = await store.write(partial(fresh_start.start_over, end=end, why=str(reach.obstacle)))
    await adopt(learner, store, row)
    queued = (await store.read(lambda store: count_by_state(store.connection)))[FactState.QUEUED]
    logger.warning("%s: it is served, and %d facts are queued to be learned", reach, queued)
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
    served = ledger.lineage(store.connection, store.model_version())
    drifts = ledger.drifts(store.connection, [*versions, *served])
    return drifts[-1].model_version if drifts else 0


def replayed_updates(store: MemoryStore, versions: Sequence[int]) -> list[ReplayedUpdate]:
    """Rows of the ledger, with the texts that their steps need."""
    examples: dict[str, Example] = {"": Example(fact_id="", question="", answer="")}

    def example(fact_id: str) -> Example:
        if fact_id not in examples:
            examples[fact_id] = Example.of(store.fact(fact_id))
        return examples[fact_id]

    rows = []
    for update in ledger.at_versions(store.connection, versions):
        rehearsed = dict.fromkeys(id_ for step in update.steps for id_ in step.rehearsed_fact_ids)
        rows.append(
            ReplayedUpdate(
                update=update,
                example=example(update.fact_id),
                rehearsed=tuple(map(example, rehearsed)),
            )
        )
    return rows
