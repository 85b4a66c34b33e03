"""Operations (forget and rollback), and what an operator does with the data folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from typing import Any


class OperationKind(StrEnum):
    """What an operator asked for that moves the head of the ledger."""

    FORGET = "forget"
    """Serve weights that never saw a fact."""
    ROLLBACK = "rollback"
    """Serve an earlier version."""


class OperationState(StrEnum):
    """The progress of an operation."""

    PENDING = "pending"
    """Requested, not begun."""
    RUNNING = "running"
    """Its branch is being built, or it is served and the clean-up is not done."""
    DONE = "done"
    """Its result is served, and everything else that it asked for is done."""
    FAILED = "failed"
    """It was given up after an error; what is served stayed as it was."""
    CANCELLED = "cancelled"
    """It was given up on request; what is served stayed as it was."""


class Phase(StrEnum):
    """Where an operation stands. `Transition` has every way from one phase to another."""

    REQUESTED = "requested"
    """Asked for, and durable. Nothing is built."""
    BUILDING = "building"
    """What it is to serve is built beside the head: a branch, or the states before a rollback."""
    SWITCHED = "switched"
    """The head has moved. Facts get their states, and what a forgotten fact left is removed."""
    DONE = "done"
    """Nothing is left to be done."""
    FAILED = "failed"
    """Given up after an error. What is served stayed as it was."""
    CANCELLED = "cancelled"
    """Given up on request. What is served stayed as it was."""

    @property
    def state(self) -> OperationState:
        """What users see of it."""
        return _STATES.get(self) or OperationState(self.value)


_STATES = {
    Phase.REQUESTED: OperationState.PENDING,
    Phase.BUILDING: OperationState.RUNNING,
    Phase.SWITCHED: OperationState.RUNNING,
}
GIVEN_UP = (Phase.FAILED, Phase.CANCELLED)
"""Phases without effect: what is served stayed as it was."""


class Transition(Enum):
    """A change of phase. There are no others: whatever changes an operation asks this table.

    Attributes:
        sources: the phases that it may start from.
        target: the phase that it leads to.
        action: what an operation cannot do in any other phase, for people.
    """

    BEGIN = (Phase.REQUESTED,), Phase.BUILDING, "begin"
    """It is known which version to build on."""
    GROW = (Phase.BUILDING,), Phase.BUILDING, "grow"
    """A fact or a review was repeated, or states were written down."""
    BEGIN_ANEW = (Phase.BUILDING,), Phase.REQUESTED, "begin anew"
    """What was built is dropped, since it cannot be reached any more."""
    SWITCH = (Phase.BUILDING,), Phase.SWITCHED, "move the head"
    """The head moves to what was built."""
    SKIP = (Phase.REQUESTED,), Phase.SWITCHED, "skip its branch"
    """The served weights do not hold the fact, so the head can stay."""
    JOIN = (Phase.REQUESTED,), Phase.DONE, "be done with another one"
    """The fact has the text of one that is erased now, and was forgotten before."""
    CLOSE = (Phase.SWITCHED,), Phase.DONE, "be closed"
    """All facts have their states, and no trace of a forgotten one is left."""
    FAIL = (Phase.REQUESTED, Phase.BUILDING), Phase.FAILED, "fail"
    """An error stopped it."""
    CANCEL = (Phase.REQUESTED, Phase.BUILDING), Phase.CANCELLED, "be cancelled"
    """Somebody changed their mind."""

    def __init__(self, sources: tuple[Phase, ...], target: Phase, action: str) -> None:
        """Unpacks the value of a member."""
        self.sources = sources
        self.target = target
        self.action = action


class PlaceKind(StrEnum):
    """What was written outside the data folder."""

    BACKUP = "backup"
    """A copy of the data folder, from which it can be restored."""
    EXPORT = "export"
    """The weights as a plain checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A request to forget or to roll back, and its progress.

    Attributes:
        id: from 1, in the order requested.
        kind: forget or rollback.
        state: its progress.
        fact_id: the fact to forget; empty for a rollback.
        erase: whether the fact's text is to be removed too.
        to_version: the version to roll back to; 0 for forgetting too.
        branch_version: newest row of the branch being built; None before it began.
        position: facts up to this position are on the branch already.
        message: why it failed, or what was done.
        proof: the final measurements, as JSON values; None until then.
        requested_at: when.
        finished_at: when; None until then.
        after_event: sequence of the last event before the request.
        base_version: the version that the branch grew from; None before it began.
        first_position: facts from this position on are repeated on the branch; 0 before it began.
        first_review: so are reviews from this id on; 0 if only those after that position are.
        never_saw: probability of the fact's answer where the branch begins; None if not measured.
        done: facts that are on the branch.
        total: facts that are to be on it, as far as is known now; 0 before it began.
    """

    id: int
    kind: OperationKind
    state: OperationState
    fact_id: str
    erase: bool
    to_version: int
    branch_version: int | None
    position: int
    message: str
    proof: Mapping[str, Any] | None
    requested_at: datetime
    finished_at: datetime | None
    after_event: int = 0
    base_version: int | None = None
    first_position: int = 0
    first_review: int = 0
    never_saw: float | None = None
    done: int = 0
    total: int = 0

    @property
    def phase(self) -> Phase:
        """Where it stands; `memory_store.tables` has the same as conditions of SQL."""
        if self.finished_at is not None:
            return Phase(self.state.value)
        if self.proof is not None:
            return Phase.SWITCHED
        return Phase.REQUESTED if self.branch_version is None else Phase.BUILDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A backup or an export that was written outside the data folder."""

    kind: PlaceKind
    path: str
    model_version: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """The result of compacting.

    Attributes:
        bytes_before: size of the database file.
        bytes_after: the same afterwards.
        removed_probes: old probes that the retention rule does not keep.
        removed_events: likewise.
        reclaimable_bytes: free inside the file; given back only when it is rewritten.
        postponed: why old probes and events were left in place, for people; empty if they were not.
    """

    bytes_before: int
    bytes_after: int
    removed_probes: int
    removed_events: int
    reclaimable_bytes: int
    postponed: str = ""
