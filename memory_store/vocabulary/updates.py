"""Gradient steps, the findings of an attempt, and the rows of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from memory_store.vocabulary.policies import Policy


class LedgerKind(StrEnum):
    """What a row of the ledger did; see `memory_store.ledger`."""

    TEACH = "teach"
    RELEARN = "relearn"
    FORGET = "forget"
    ROLLBACK = "rollback"
    DRIFT = "drift"


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
