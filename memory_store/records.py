"""What the memory holds, as frozen records: the vocabulary that every other package speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class FactState(StrEnum):
    """Where a fact stands; the transitions are in `memory_store.facts.TRANSITIONS`."""

    QUEUED = "queued"
    LEARNING = "learning"
    LEARNED = "learned"
    KNOWN = "known"
    RESISTED = "resisted"
    QUARANTINED = "quarantined"
    SUPERSEDED = "superseded"
    FORGOTTEN = "forgotten"


# States of facts that the served weights hold.
HELD = (FactState.LEARNED, FactState.KNOWN)


class EventKind(StrEnum):
    """What happened. `STEP` is passing: it is sent to watchers and never stored."""

    ACCEPTED = "accepted"
    LEARNING = "learning"
    STEP = "step"
    LEARNED = "learned"
    KNOWN = "known"
    RESISTED = "resisted"
    RETRIED = "retried"
    QUARANTINED = "quarantined"
    SUPERSEDED = "superseded"
    FORGOTTEN = "forgotten"
    ROLLED_BACK = "rolled_back"
    REBUILDING = "rebuilding"
    OPERATION_FAILED = "operation_failed"
    CLEAN_UP_FAILED = "clean_up_failed"
    DRIFT_ACCEPTED = "drift_accepted"
    RETAUGHT = "retaught"
    REQUEUED = "requeued"
    GAP = "gap"
    LEARNER_DOWN = "learner_down"
    LEARNER_READY = "learner_ready"


class LedgerKind(StrEnum):
    """What a row of the ledger did; see `memory_store.ledger`."""

    TEACH = "teach"
    RELEARN = "relearn"
    FORGET = "forget"
    ROLLBACK = "rollback"
    DRIFT = "drift"


class OperationKind(StrEnum):
    """What an operator asked for that moves the head of the ledger."""

    FORGET = "forget"
    ROLLBACK = "rollback"


class OperationState(StrEnum):
    """How far an operation is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


# States of operations that came to nothing: what is served stayed as it was.
GIVEN_UP = (OperationState.FAILED, OperationState.CANCELLED)


class PlaceKind(StrEnum):
    """What was written outside the data folder."""

    BACKUP = "backup"
    EXPORT = "export"


class ReviewOutcome(StrEnum):
    """What a review of a held fact came to.

    `HELD`: the weights still had it. Else it was taught again: `RETAUGHT` if that led to an update,
    `RESISTED` if the weights were put back, `FAILED` if it could not be tried, or not be asked.
    `SKIPPED`, on a branch only: the fact was not held there.
    """

    HELD = "held"
    RETAUGHT = "retaught"
    RESISTED = "resisted"
    FAILED = "failed"
    SKIPPED = "skipped"


class ProbeKind(StrEnum):
    """Why a question was put to the model."""

    RETENTION = "retention"
    TRANSFER = "transfer"
    FORGETTING = "forgetting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """How much of everything else an update is held to; 0 switches a guard off.

    Attributes:
        candidates: older facts that are looked at before and after.
        rehearsed: how many of them are learned along, half the weakest, half drawn.
        neighbours: questions of the same form about invented names, held to the base model.
        controls: more of those, of which the update never learns, asked at the gate.
        texts: pieces of general text, held to the base model.
    """

    candidates: int = 0
    rehearsed: int = 0
    neighbours: int = 0
    controls: int = 0
    texts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How the learning rate of a fact is chosen, and what guards its update.

    Attributes:
        name: a key of `agent.learning.rates.POLICIES`.
        learning_rate: of a step; with `search` and `predicted` the largest that they may choose.
            1e-8 to 1e-1.
        max_steps: 1 to 1000.
        guards: None leaves them to the server.
        predictor: with `predicted`, the numbers of an `agent.learning.prediction.RatePredictor`,
            which the server adds; None while it has none.
        gated: an update that harms what was there before is refused, whatever the policy and its
            guards. Rows from before this existed are read as not gated, so that learning them
            again gives the same result.
    """

    name: str
    learning_rate: float
    max_steps: int
    guards: Guards | None = None
    predictor: tuple[float, ...] | None = None
    gated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFact:
    """A fact as a client hands it in, already validated.

    `asked_policy` is the policy before the server completed it, with zeros for what the client left
    to it; None: as `policy`.
    """

    question: str
    answer: str
    correlated_questions: tuple[str, ...] = ()
    policy: Policy | None = None  # None: the server's default, decided when it is learned
    request_id: str | None = None
    fact_id: str | None = None
    asked_policy: Policy | None = None
    traceparent: str | None = None  # of the call that taught it (W3C), so that learning joins it


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One gradient step of an update.

    Attributes:
        learning_rate: the rate it was taken at.
        loss: mean cross entropy of the answer's tokens before the step, nats a token.
        probability: of the exact answer after the step, 0 to 1.
        rehearsed_fact_ids: older facts in the same step, in the order of the batch.
        gradient_norm: Euclidean, over all trained weights, before the step; 0 if not recorded.
        answer_tokens: of the fact's answer, terminator included; 0 if not recorded.
        candidates: how many rates were scored to choose this one; 0 if none were compared.
    """

    learning_rate: float
    loss: float
    probability: float
    rehearsed_fact_ids: tuple[str, ...] = ()
    gradient_norm: float = 0.0
    answer_tokens: int = 0
    candidates: int = 0


@dataclass(frozen=True, slots=True)
class RatePoint:
    """What one step at a rate would lead to: the probability of the fact's answer, 0 to 1."""

    learning_rate: float
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What the last attempt at learning a fact did and found; see `Learning` in memory.proto.

    Attributes:
        learning_rates: one for each gradient step.
        probability_before: of the exact answer.
        probability_after: the same after the last step.
        answer_before: free greedy generation.
        answer_after: the same after the last step.
        model_version: ledger position after the update; 0 if none was applied.
        curve: the first step at every rate that was scored, ascending; empty if none were.
        base_answer: what the base model says to the question, which guards are built on.
        leak: the largest probability of the answer to a question that no loss contains.
        drift: the largest divergence of a general text, nats a token. Both are of the weights after
            the last step, and None if the update was not held to any.
    """

    learning_rates: tuple[float, ...]
    probability_before: float
    probability_after: float
    answer_before: str
    answer_after: str
    model_version: int = 0
    curve: tuple[RatePoint, ...] = ()
    base_answer: str | None = None
    leak: float | None = None
    drift: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A fact and where it stands.

    `position` is the order of acceptance, from 1. `policy` is what the fact brought, `tried_policy`
    that of the last attempt at learning it, however it ended (None before, and in memories of old).
    """

    position: int
    id: str
    question: str
    answer: str
    correlated_questions: tuple[str, ...]
    policy: Policy | None
    state: FactState
    accepted_at: datetime
    updated_at: datetime
    failed_attempts: int = 0
    reason: str = ""
    superseded_by: str = ""
    learning: Learning | None = None
    tried_policy: Policy | None = None

    @property
    def erased(self) -> bool:
        """Whether its text was erased, and only its row is left."""
        return not self.question


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpdate:
    """An update that the learner made, about to become a row of the ledger."""

    fact_id: str
    base_version: int
    steps: tuple[Step, ...]
    digest_before: str
    digest_after: str
    algorithm: str
    environment: Mapping[str, str]
    seconds: float
    policy: Policy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One row of the ledger: all that is needed to repeat the update.

    Attributes:
        model_version: position in the ledger, from 1; the version of the weights after it.
        kind: what it did.
        parent_version: the version it was made on; 0 is the base checkpoint.
        fact_id: the fact it taught or made forgotten; empty for a rollback.
        policy: how the rate was chosen, so that the fact can be learned again by the same rule.
        steps: the gradient steps, in order.
        digest_before: digest of the weights it started from.
        digest_after: digest of the weights it led to.
        algorithm: name and version of the procedure, e.g. `answer-adamw/1`.
        environment: software and hardware that floating-point results depend on.
        seconds: wall-clock time from claim to ledger row.
        applied_at: when the row was committed.
    """

    model_version: int
    kind: LedgerKind = LedgerKind.TEACH
    parent_version: int = 0
    fact_id: str
    policy: Policy | None = None
    steps: tuple[Step, ...]
    digest_before: str
    digest_after: str
    algorithm: str
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float
    applied_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Where a line of the ledger goes on from other weights than were recorded before.

    Attributes:
        model_version: the first row that was made on the other weights.
        kind: of that row: `drift` if the operator accepted it there, else it had been accepted.
        parent_version: the version whose weights came out different.
        recorded: their digest, as recorded.
        here: the digest of what came out.
    """

    model_version: int
    kind: LedgerKind
    parent_version: int
    recorded: str
    here: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProbe:
    """A measurement about to be stored; see `Probe`."""

    kind: ProbeKind
    fact_id: str
    question: str
    expected_answer: str
    answer: str
    correct: bool
    log_probability: float
    samples: int = 0
    correct_samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(NewProbe):
    """One question put to the model, and how it did.

    Attributes:
        kind: why it was asked.
        fact_id: the fact that it is about.
        question: as asked.
        expected_answer: the right answer.
        answer: free greedy generation.
        correct: the generation ended by itself and says the expected answer.
        log_probability: of the exact answer, terminator included, natural logarithm.
        samples: texts that were sampled from the bare question, as in the paper; 0 if none were.
        correct_samples: how many of them say the answer.
        model_version: position in the ledger of the weights that were asked.
        cause_fact_id: the fact whose learning led to this probe, or empty.
        probed_at: when it was stored.
    """

    model_version: int
    cause_fact_id: str
    probed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReview:
    """A review that was carried out, about to be stored; see `Review`.

    Attributes:
        fact_id: of the fact that was asked.
        model_version: the version that was asked.
        outcome: what it came to.
        reason: why a fact that had fallen could not be taught again, for people.
        probe: of the fact's own question before anything was done; None if it could not be asked.
        policy: by which the fact is taught again.
        update: the update, if it was.
        learning: what teaching it again found; None if there was no update.
        probes: of the weights after the update.
    """

    fact_id: str
    model_version: int
    outcome: ReviewOutcome
    reason: str = ""
    probe: NewProbe | None = None
    policy: Policy | None = None
    update: NewUpdate | None = None
    learning: Learning | None = None
    probes: tuple[NewProbe, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A held fact was asked again: an input of the history, as a teaching is.

    Attributes:
        id: from 1, in the order of reviews.
        fact_id: of the fact.
        after_position: everything accepted up to this position had been processed, and no more.
        model_version: the version that was asked.
        outcome: what it came to.
        reason: why a fact that had fallen could not be taught again.
        retaught_version: of the row that taught it again; None if it was not.
        probability: of the fact's answer, 0 to 1; None if it could not be asked.
        age: updates since the fact was taught last.
        reviewed_at: when.
    """

    id: int
    fact_id: str
    after_position: int
    model_version: int
    outcome: ReviewOutcome
    reason: str
    retaught_version: int | None
    probability: float | None
    age: int
    reviewed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How many facts of some ages were still held when they were reviewed.

    Attributes:
        youngest: age in updates since the fact was taught last.
        oldest: the largest age that counts here.
        held: so many reviews found the fact to be held,
        asked: of so many.
    """

    youngest: int
    oldest: int
    held: int
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPoint:
    """A probe of a fact's own question: the weights asked, its probability (0 to 1), and when."""

    model_version: int
    probability: float
    probed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FactRetention:
    """How well a held fact was remembered of late.

    Attributes:
        fact_id: of the fact.
        age: updates since it was taught last.
        points: its last probes, newest first.
    """

    fact_id: str
    age: int
    points: tuple[RetentionPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. `sequence` grows by one; 0 marks a passing event."""

    sequence: int
    kind: EventKind
    at: datetime
    fact_id: str = ""
    model_version: int = 0
    message: str = ""
    learning: Learning | None = None
    step: Step | None = None
    step_number: int = 0  # of the attempt, from 1; 0 if it is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The answer to `teach`.

    Attributes:
        fact: the stored fact.
        created: False if the memory held it already.
        event_sequence: the last event before it was accepted (or before now, if held already).
        repeated: the request had been answered before: the rest is as it was then, but for the
            fact, which is as it is now.
        replaces: id of the fact with another answer to its question, whose place it takes; empty
            if there is none.
    """

    fact: Fact
    created: bool
    event_sequence: int
    repeated: bool = False
    replaces: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A request to forget or to roll back, and how far it is.

    Attributes:
        id: from 1, in the order requested.
        kind: forget or rollback.
        state: how far it is.
        fact_id: what to forget; empty for a rollback.
        erase: whether the fact's text is to be removed too.
        to_version: where to roll back to; 0 for forgetting too.
        branch_version: newest row of the branch being built; None before it began.
        position: facts up to this position are on the branch already.
        message: why it failed, or what was done.
        proof: what was measured in the end, as JSON values; None until then.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A backup or an export that was written outside the data folder."""

    kind: PlaceKind
    path: str
    model_version: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What compacting did.

    Attributes:
        bytes_before: of the database file.
        bytes_after: the same afterwards.
        removed_probes: old probes that the rule does not keep.
        removed_events: likewise.
        reclaimable_bytes: free in the file, given back only when it is rewritten.
    """

    bytes_before: int
    bytes_after: int
    removed_probes: int
    removed_events: int
    reclaimable_bytes: int
