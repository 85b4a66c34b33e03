"""What the clients return, besides the records of `memory_store.vocabulary`.

Reply            an answer of the model
Score            how likely the model finds an answer
Taught, Rejected the result of one fact of several
Status           what a server serves, and its progress
OperationStatus  the progress of a forget or a rollback
Snapshot         weights of one version on disk
Explanation      which updates moved an answer, as `Influence`s
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.teaching.limits import TeachingLimits
from memory_store.vocabulary import (
    EventKind,
    FactState,
    LearnerState,
    OperationKind,
    OperationState,
)

SETTLED = frozenset(FactState) - {FactState.QUEUED, FactState.LEARNING}
OPERATION_ENDS = (EventKind.FORGOTTEN, EventKind.ROLLED_BACK, EventKind.OPERATION_FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer of the model.

    Attributes:
        answer: the text.
        finished: False if it was cut off at the limit of new tokens.
        model_version: ledger position of the weights that gave it.
    """

    answer: str
    finished: bool
    model_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How likely the model finds an answer.

    Attributes:
        log_probability: of the whole answer, exact and natural, terminator included.
        tokens: number of tokens of the answer, terminator included.
        model_version: ledger position of the weights.
    """

    log_probability: float
    tokens: int
    model_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """A fact of a batch that is durable.

    Attributes:
        fact_id: of the fact.
        created: False if the memory held it already.
        repeated: the request had been answered before, and this is that answer.
    """

    fact_id: str
    created: bool
    repeated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A fact of several that the server refused.

    Attributes:
        index: its place among them, from 0.
        message: why.
        reason: see `RequestError`.
        retry_seconds: see `RequestError`.
    """

    index: int
    message: str
    reason: str = ""
    retry_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationStatus:
    """How far a request to forget or to roll back is.

    Attributes:
        id: for `wait_operation`.
        kind: forget or rollback.
        state: pending, running, done, failed or cancelled.
        fact_id: the fact to forget; empty for a rollback.
        message: why it failed, or what keeps it from ending.
        proof: what was measured at the end; empty until then.
        erase: whether the text is removed too.
        to_version: the version to roll back to.
        done_facts: number of facts learned again so far.
        total_facts: number of facts to learn again, as far as is known now.
        requested_at: when it was requested; None from a server that does not report it.
        finished_at: when it ended; None until then.
    """

    id: int
    kind: OperationKind
    state: OperationState
    fact_id: str
    message: str
    proof: dict[str, Any]
    erase: bool = False
    to_version: int = 0
    done_facts: int = 0
    total_facts: int = 0
    requested_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def over(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self.state not in (OperationState.PENDING, OperationState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a server serves; see `GetStatusResponse` in model.proto."""

    model: str
    model_version: int
    queue_depth: int
    facts: dict[FactState, int]
    learner: LearnerState
    device: str
    parameters: int
    event_sequence: int
    updates_to_replay: int
    started_at: datetime | None = None
    oldest_queued_at: datetime | None = None
    learning_paused: bool = False
    leak_limit: float = 0.0
    drift_limit: float = 0.0
    memory_bytes: int = 0
    memory_total_bytes: int = 0
    snapshot_version: int = 0
    snapshot_overdue: str = ""
    teaching_limits: TeachingLimits | None = None
    learner_message: str = ""
    operation: OperationStatus | None = None
    clean_up_problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The weights of one version on disk.

    Attributes:
        model_version: the version.
        digest: of the weights.
        size_bytes: of the file.
        created_at: ISO 8601, UTC.
    """

    model_version: int
    digest: str
    size_bytes: int
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence:
    """What one update did to the probability of an answer; see `Influence` in memory.proto."""

    model_version: int
    cause_fact_id: str
    cause_question: str
    probability_before: float
    probability_after: float
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The fact that a question belongs to, and what moved its answer, largest movement first."""

    fact_id: str
    influences: tuple[Influence, ...]
