"""Carrying out an operation, phase by phase: requested, building, switched.

A second learner builds what will be served while the first goes on answering with the old weights;
then they change places. `Forget` and `Rollback` say what is built and how the head moves. What
follows, from `switched` to `done`, is the clean-up (`agent.server.loop.undo.clean_up`).
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partial

from agent.errors import (
    DriftError,
    LearnerUnavailableError,
    LearningFailedError,
    StaleVersionError,
    UnreachableError,
)
from agent.server.loop.recovery import Replayed, adopt, bring_to
from agent.server.loop.serving import Serving
from agent.server.loop.undo.branch_builder import Failures
from agent.server.loop.undo.turns import Turns
from agent.teaching.attempt import row_without_steps
from agent.teaching.learner_protocol import Learner
from memory_store import branch_growth, ledger, operations, undo
from memory_store.branches import Beginning
from memory_store.sought import Sought
from memory_store.store import MemoryStore
from memory_store.vocabulary import LedgerKind, NewUpdate, Operation, Phase, Update

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class OperationRunner(ABC):
    """Takes one operation from `requested` or `building` to `switched`.

    Attributes:
        serving: what is served meanwhile.
        operation: to be begun or resumed; later as it was last read.
        learner: with the base checkpoint; serves the new head when `run` returns.
        failures: see `BranchBuilder`.
        turns: of the learning that goes on meanwhile.
        text: of the fact that is forgotten, if it was erased and is still known, so that it can be
            measured; nothing is measured of an erased fact otherwise.
        latest_base: the branch begins from no later version than this; None: from the last one
            without the fact. Everything that follows is learned again.
    """

    serving: Serving
    operation: Operation
    learner: Learner
    failures: Failures
    turns: Turns
    text: Sought | None = None
    latest_base: int | None = None
    _started: float = field(init=False, default_factory=time.monotonic)
    _replayed_to: int = field(init=False, default=0)
    _start_digest: str = field(init=False, default="")

    async def run(self) -> Update:
        """Carries the operation out; returns the ledger row that is served from now on.

        Cancelled, it can be resumed: what is built is stored. When it returns, the learning that
        goes on meanwhile is stopped (see `Turns.stop`), since another learner serves from now on.

        Raises:
            DriftError: the ledger does not replay to the recorded weights.
            LearningFailedError: the learner failed at something else than learning a fact.
            LearnerUnavailableError: the learner died; the operation can be resumed.
            OperationEndedError: somebody cancelled it.
        """
        await self._begin()
        await self._build()
        row = await self._switch()
        try:
            await adopt(self.learner, self.serving.store, row)
        except (LearningFailedError, DriftError, StaleVersionError) as error:
            # The head has moved: only starting again, from the ledger, is right now.
            raise LearnerUnavailableError(f"it lost its place at the end: {error}") from error
        return row

    def _report(self, what: str) -> None:
        self.serving.report(self.operation, what)

    # --- requested -> building ------------------------------------------------------------------

    async def _begin(self) -> None:
        """Begins the operation or resumes it, with the learner where it has been built up to.

        Raises:
            LearnerUnavailableError: that takes a fresh learner.
        """
        replayed = await self._reach()
        self._replayed_to = self.operation.branch_version or 0
        self._start_digest = replayed.digest or await self._recorded(self._replayed_to)

    async def _reach(self) -> Replayed:
        """Brings the learner to the end of the branch.

        What cannot be reached, mostly since another release made it, is begun anew from the nearest
        version that can be. More is learned again then.
        """
        latest, because = self.latest_base, ""
        while True:
            await self._find_base(latest, because)
            operation, version = self.operation, self.operation.branch_version or 0
            try:
                return await bring_to(
                    self.learner,
                    self.serving.store,
                    version,
                    self.serving.settings.snapshots,
                    lambda left: self._report(f"{left} updates to replay"),
                    algorithm=self.serving.algorithm(),
                )
            except UnreachableError as error:
                at_base = version == operation.base_version
                if at_base and error.nearest >= version:
                    raise
                logger.warning("operation %d begins anew: %s", operation.id, error)
                latest, because = (error.nearest, str(error)) if at_base else (None, "")
                await self.serving.store.write(partial(undo.begin_anew, operation_id=operation.id))
                if error.at:
                    await self._find_base(latest, because)
                    if self.operation.branch_version == error.at:  # the learner is there already
                        return Replayed(updates=0, digest=error.digest)
                    raise LearnerUnavailableError(f"another one is needed: {error}") from error

    async def _find_base(self, latest: int | None, because: str) -> None:
        """Finds where the branch begins, unless that is known from before.

        Args:
            latest: no later than from this version; None: as late as possible.
            because: why not later, for people.
        """
        self.operation = await self.serving.store.read(
            partial(operations.get, operation_id=self.operation.id)
        )
        if self.operation.phase is Phase.BUILDING:
            return
        while await self.serving.store.write(branch_growth.remove_dropped):
            pass
        begin = partial(
            undo.begin_operation,
            operation_id=self.operation.id,
            beginning=await self._beginning(latest),
            because=because,
        )
        self.operation = await self.serving.store.write(begin)

    @abstractmethod
    async def _beginning(self, latest: int | None) -> Beginning:
        """Where the branch begins: no later than from a version (None: as late as possible)."""

    # --- building -------------------------------------------------------------------------------

    @abstractmethod
    async def _build(self) -> None:
        """Prepares what will be served, until nothing is missing."""

    # --- building -> switched -------------------------------------------------------------------

    @abstractmethod
    async def _switch(self) -> Update:
        """Measures the new weights, and moves the head; returns the row that does so."""

    # --- What both prove ------------------------------------------------------------------------

    async def _end_row(self, version: int, fact_id: str = "") -> NewUpdate:
        """The row, without steps, that moves the head to this version."""
        head = await self.serving.store.read(MemoryStore.model_version)
        started_there = version == self._replayed_to
        return row_without_steps(
            version,
            await self._recorded(head),
            self._start_digest if started_there else await self._recorded(version),
            self.serving.environment(),
            fact_id=fact_id,
            seconds=time.monotonic() - self._started,
        )

    async def _drift(self, end: NewUpdate) -> str | None:
        """Says so if the branch does not grow from the recorded weights, but from what replays."""
        line = await self.serving.store.read(
            lambda store: ledger.lineage(store.connection, version=end.base_version)
        )
        drifts = await self.serving.store.read(lambda store: ledger.drifts(store.connection, line))
        taken_in = [
            (drift.parent_version, drift.recorded, drift.here)
            for drift in drifts
            if drift.kind is not LedgerKind.DRIFT
        ]
        recorded = await self._recorded(end.base_version)
        if recorded != end.digest_after:  # nothing was learned on it that could say so
            taken_in.append((end.base_version, recorded, end.digest_after))
        if not taken_in:
            return None
        version, recorded, here = taken_in[-1]
        return f"version {version} was recorded as {recorded[:12]} and replays as {here[:12]} here"

    async def _recorded(self, version: int) -> str:
        """The digest of a version as recorded; of the base checkpoint from the learner."""
        if version:
            update = await self.serving.store.read(
                partial(MemoryStore.update, model_version=version)
            )
            return update.digest_after
        return (await self.learner.describe()).base_digest
