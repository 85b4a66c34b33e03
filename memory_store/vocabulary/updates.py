"""Attempts and updates: verdicts, gradient steps, findings, and the rows of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from memory_store.vocabulary.policies import Policy
from memory_store.vocabulary.probes import NewProbe


class Verdict(StrEnum):
    """How an attempt to learn a fact ended."""

    LEARNED = "learned"
    """The working weights hold it: the update can be recorded and served."""
    KNOWN = "known"
    """The weights answered it before the first step; there is nothing to record."""
    RESISTED = "resisted"
    """It was refused, and the weights were put back. See `Refusal`."""
    FAILED = "failed"
    """It could not be carried out, e.g. the loss was not finite. The service never records it."""


class Refusal(StrEnum):
    """Why a fact resisted: what refused the update."""

    NOT_LEARNED = "not_learned"
    """The steps were used up before the fact was known. No guard was violated."""
    LEAK = "leak"
    """A question that was never taught would get the new answer."""
    GENERAL_TEXT = "general_text"
    """General text would diverge too far from the base model."""
    FACT_LOST = "fact_lost"
    """An older fact that was held would no longer be answered."""

    @property
    def by_guard(self) -> bool:
        """Whether the fact was learned, and a guard refused the update."""
        return self is not Refusal.NOT_LEARNED


class LedgerKind(StrEnum):
    """What a row of the ledger did; see `memory_store.ledger`."""

    TEACH = "teach"
    """An update that taught a fact, for the first time or in a review."""
    RELEARN = "relearn"
    """The same on a branch."""
    FORGET = "forget"
    """A branch without the forgotten fact became the head. No steps."""
    ROLLBACK = "rollback"
    """An earlier version became the head. No steps."""
    DRIFT = "drift"
    """The operator accepted that replay gives other weights here. No steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One gradient step of an update.

    Attributes:
        learning_rate: of this step.
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
        probability_before: of the exact answer, 0 to 1.
        probability_after: the same after the last step.
        answer_before: free greedy generation.
        answer_after: the same after the last step.
        model_version: the version that the update led to; 0 if none was applied.
        curve: the first step at every rate that was scored, ascending; empty if none were.
        base_answer: what the base model says to the question, which guards are built on.
        leak: the largest probability of the answer to a question that no loss contains.
        drift: the largest divergence of a general text from the base model, nats a token. This and
            `leak` are of the weights after the last step; None if the update had no such guard.
        refusal: why the fact resisted; None if it did not.
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
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpdate:
    """An update that the learner made, before it becomes a row of the ledger; see `Update`."""

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
class Attempt:
    """An attempt at learning a fact that has ended, before it is stored.

    Attributes:
        fact_id: of the fact.
        verdict: how it ended.
        reason: why it resisted or failed, for people; empty otherwise.
        policy: of the lesson.
        learning: findings; None if it failed.
        probes: of the weights after it.
        update: the row of the ledger; None unless the fact was learned.
    """

    fact_id: str
    verdict: Verdict
    reason: str = ""
    policy: Policy | None = None
    learning: Learning | None = None
    probes: tuple[NewProbe, ...] = ()
    update: NewUpdate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One row of the ledger: all that is needed to repeat the update.

    Attributes:
        model_version: position in the ledger, from 1; also names the weights after it.
        kind: what it did.
        parent_version: the version it was made on; 0 is the base checkpoint.
        fact_id: the fact that it taught or made forgotten; empty for a rollback.
        policy: how the rate was chosen, so that the fact can be learned again by the same rule.
        steps: the gradient steps, in order.
        digest_before: of the weights that it started from.
        digest_after: of the weights that it led to.
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
class ReplayDrift:
    """A place in the ledger where a line continues from weights other than those recorded.

    Attributes:
        model_version: the first row that was made on the other weights.
        kind: of that row: `drift` if the operator accepted it there; otherwise it had been
            accepted before.
        parent_version: the version whose replay gave other weights.
        recorded: the recorded digest of that version.
        here: the digest that its replay gave.
    """

    model_version: int
    kind: LedgerKind
    parent_version: int
    recorded: str
    here: str
