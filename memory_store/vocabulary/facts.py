"""Facts: as a client sends them, and as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from memory_store.vocabulary.policies import Policy
from memory_store.vocabulary.updates import Learning


class FactState(StrEnum):
    """Where a fact stands. `memory_store.facts.TRANSITIONS` has the allowed changes."""

    QUEUED = "queued"
    """Accepted, waiting for its turn."""
    LEARNING = "learning"
    """Claimed: the learner is working on it."""
    LEARNED = "learned"
    """Its update is in the ledger."""
    KNOWN = "known"
    """The model answered it before any update; nothing was changed."""
    RESISTED = "resisted"
    """It could not be learned within the rules; the weights were put back."""
    QUARANTINED = "quarantined"
    """Learning it failed repeatedly, or it is too long for the model. The other facts went on."""
    SUPERSEDED = "superseded"
    """A newer answer to the same question took its place."""
    FORGOTTEN = "forgotten"
    """It was forgotten on request, or taught after the version that a rollback serves."""


HELD = (FactState.LEARNED, FactState.KNOWN)
"""States of facts that the served weights answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFact:
    """A validated fact, before it is stored.

    Attributes:
        question: as asked.
        answer: the answer to learn.
        correlated_questions: related questions with the same answer; never trained on.
        policy: None leaves it to the server, which decides when the fact is learned.
        request_id: makes the call idempotent; None if it need not be.
        fact_id: None lets the store choose one.
        asked_policy: the policy before the server completed it, with zeros for what the client
            left to the server; None if it is `policy`.
        traceparent: W3C trace context of the call that taught it, so that learning joins its trace.
    """

    question: str
    answer: str
    correlated_questions: tuple[str, ...] = ()
    policy: Policy | None = None
    request_id: str | None = None
    fact_id: str | None = None
    asked_policy: Policy | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A stored fact and its state.

    Attributes:
        position: place in the order of acceptance, from 1.
        id: chosen by the client or the store.
        question: empty once the text was erased.
        answer: likewise.
        correlated_questions: see `NewFact`.
        policy: the one that the fact brought; None if it brought none.
        state: where it stands.
        accepted_at: when it was stored.
        updated_at: when the state last changed.
        failed_attempts: how many attempts could not be carried out.
        reason: why it is in this state, for people; empty if that needs no explanation.
        superseded_by: id of the fact that took its place, or empty.
        learning: findings of the last attempt; None before the first.
        tried_policy: policy of the last attempt, however that ended; None before the first.
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
        """Whether its text was erased, so that only its row is left."""
        return not self.question


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The answer to `teach`.

    Attributes:
        fact: the stored fact.
        created: False if the memory held it already.
        event_sequence: the last event before it was accepted (or before now, if held already).
        repeated: the request was answered before. The rest is as it was then, except the fact,
            which is as it is now.
        replaces: id of the fact with another answer to the same question that it supersedes; empty
            if there is none.
    """

    fact: Fact
    created: bool
    event_sequence: int
    repeated: bool = False
    replaces: str = ""
