"""The served learner, and what the parts of the learning loop share about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.config import DEFAULT_MAX_ATTEMPTS
from agent.errors import LearnerUnavailableError, LearningFailedError
from agent.server.loop.backoff import PatientWriter
from agent.server.shared_lock import SharedLock
from agent.teaching.learner_protocol import Learner
from agent.teaching.plan import Defaults
from agent.teaching.types import LearnerDescription
from memory_store.store import MemoryStore
from memory_store.vocabulary import Event, EventKind, Fact, LearnerState, Operation, Policy, Update
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """What the operator decides.

    Attributes:
        model: name or folder, as given.
        policy: for facts that bring none.
        gated: every update must pass the gate; see `Policy`.
        snapshots: folder of all snapshots.
        accept_drift: serve weights that replay differently from what was recorded.
        samples: sampled for each question of a fact after its update; 0 for none.
        max_attempts: a fact that fails this often is quarantined; the others go on.
    """

    model: str
    policy: Policy
    snapshots: Path
    gated: bool = False
    accept_drift: bool = False
    samples: int = 0
    max_attempts: int = DEFAULT_MAX_ATTEMPTS


async def _nothing(*_: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the rest of the server does at moments of the learning loop.

    Attributes:
        publish: called with passing events.
        on_update: called when a row of the ledger is served.
        on_loaded: called with each learner once it is known to have this memory's model.
        around: entered with each claimed fact, while it is learned.
        hold_snapshot: makes sure that a snapshot of a served version with this digest exists; see
            `SnapshotKeeper.hold`.
        keep_only: removes the snapshots of all other versions; see `SnapshotKeeper.keep_only`.
            None: nobody else writes any, and the loop removes them.
    """

    publish: Callable[[Event], None] = lambda event: None
    on_update: Callable[[Update], None] = lambda update: None
    on_loaded: Callable[[LearnerDescription], Awaitable[None]] = _nothing
    around: Callable[[Fact], AbstractAsyncContextManager[None]] = lambda fact: nullcontext()
    hold_snapshot: Callable[[int, str], Awaitable[None]] = _nothing
    keep_only: Callable[[Collection[int]], Awaitable[None]] | None = None


class Serving:
    """Which learner serves which version.

    Attributes:
        store: the memory.
        settings: see there.
        hooks: see there.
        write: writes to the memory, also while the disk is full.
        learner: the one that can be asked now, or None.
        version: that it serves; 0 is the base model.
        state: what it is doing.
        state_changed: set at every change of `state`.
        description: what it has loaded, once known.
        updates_to_replay: how many updates recovery still has to replay.
        message: what keeps it from being ready, for people, such as why it was down last.
        operation: what the current operation is doing, for people; empty if there is none.
        memory: bytes that the learner uses, of its GPU or of RAM, and bytes in total.
        questions: shared by whoever asks the learner; a fact that failed is tried again alone.
        woken: set when there may be something to learn or to review.
        stopped: set when the server is being stopped.
    """

    def __init__(self, store: StoreThreads, settings: LoopSettings, hooks: Hooks) -> None:
        """Serves nothing yet."""
        self.store = store
        self.settings = settings
        self.hooks = hooks
        self.woken, self.stopped = asyncio.Event(), asyncio.Event()
        self.write = PatientWriter(store, self.stopped)
        self.learner: Learner | None = None
        self.version = 0
        self.state = LearnerState.STARTING
        self.state_changed = asyncio.Event()
        self.description: LearnerDescription | None = None
        self.updates_to_replay = 0
        self.message = ""
        self.operation = ""
        self.memory = (0, 0)
        self.questions = SharedLock()
        self._served = asyncio.Event()
        self._predictor: tuple[float, ...] | None = None
        self._head_moved_at = 0

    # --- For those who ask ----------------------------------------------------------------------

    async def current(self) -> Learner:
        """The learner to be asked, once it serves all that is in the ledger now.

        A fact is seen to be learned when its row is committed, a moment before its weights are
        served. Whoever saw that and asks gets the new weights.

        Raises:
            LearnerUnavailableError: there is none now.
        """
        # While an operation gives facts their new states, nobody sees those, and the old weights
        # are served: questions go on.
        head = 0
        if not self.store.is_switching:
            head = await self.store.read(MemoryStore.model_version)
        while self.learner is not None and self.version < head:
            await self._served.wait()
        if self.learner is None:
            why = f" ({self.message})" if self.message else ""
            raise LearnerUnavailableError(
                f"the learner is {self.state}{why}: try again in a moment ('agent status' tells how"
                " far it is)"
            )
        return self.learner

    async def look_at_memory(self) -> None:
        """A tick: how much memory the learner takes now."""
        if (learner := self.learner) is None:
            self.memory = (0, 0)
            return
        try:
            self.memory = await learner.memory()
        except (LearnerUnavailableError, LearningFailedError) as error:
            logger.debug("its memory is not known: %s", error)

    # --- For the parts of the loop --------------------------------------------------------------

    def serves(self, learner: Learner | None, version: int) -> None:
        """Notes what is served from now on, and wakes those who wait for it."""
        self.learner, self.version = learner, version
        # A new event each time: those who wait hold the old one.
        self._served.set()
        self._served = asyncio.Event()

    async def commit(self, learner: Learner, update: Update) -> None:
        """Serves an update that is in the ledger; if the learner dies here, replay brings it."""
        await learner.commit(update.model_version, update.digest_after)
        self.serves(learner, update.model_version)
        self.hooks.on_update(update)

    def becomes(self, state: LearnerState) -> None:
        """The learner does something else now."""
        self.state = state
        self.state_changed.set()

    def publish(self, kind: EventKind, fact_id: str, **found: Any) -> None:
        """Publishes a passing event."""
        at, version = datetime.now(UTC), self.version
        self.hooks.publish(
            Event(sequence=0, kind=kind, at=at, fact_id=fact_id, model_version=version, **found)
        )

    def report(self, operation: Operation, what: str) -> None:
        """Says what an operation is doing, for people."""
        self.operation = f"{operation.kind} {operation.fact_id}: {what}"
        self.publish(EventKind.REBUILDING, operation.fact_id, message=what)

    def predict_by(self, predictor: tuple[float, ...] | None, version: int) -> None:
        """From now on the policy `predicted` expects rates by this predictor.

        Args:
            predictor: as in `Policy`; None if there is too little to fit one.
            version: the head when the ledger was read. A predictor that was fitted on updates that
                have been undone since is not used.
        """
        if version >= self._head_moved_at:
            self._predictor = predictor

    def head_moved(self, version: int) -> None:
        """An operation has moved the head here: what was fitted on other lines is not used."""
        self._predictor, self._head_moved_at = None, version

    def defaults(self) -> Defaults:
        """What lessons are planned by where their facts say nothing."""
        return Defaults(
            policy=self.settings.policy,
            gated=self.settings.gated,
            predictor=self._predictor,
            device=self.description.device if self.description else "cpu",
        )

    def algorithm(self) -> str:
        """The algorithm that the learner replays; empty before one is known."""
        return self.description.algorithm if self.description else ""

    def environment(self) -> Mapping[str, str]:
        """Fingerprint of the learner; empty before one is known."""
        return self.description.environment if self.description else {}
