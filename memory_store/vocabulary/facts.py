"""Facts: as a client hands them in, and as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from memory_store.vocabulary.policies import Policy
from memory_store.vocabulary.updates import Learning


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
