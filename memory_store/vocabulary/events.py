"""Events: what happened, in order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from memory_store.vocabulary.updates import Learning, Step


class EventKind(StrEnum):
    """What happened. `STEP` and `GAP` are sent to watchers and never stored."""

    ACCEPTED = "accepted"
    """A fact was stored."""
    LEARNING = "learning"
    """A fact was claimed, and its attempt began."""
    STEP = "step"
    """A gradient step was taken."""
    LEARNED = "learned"
    """The update of a fact is in the ledger."""
    KNOWN = "known"
    """A fact needed no update."""
    RESISTED = "resisted"
    """An update was refused; the weights were put back."""
    RETRIED = "retried"
    """An attempt failed; the fact is queued again."""
    QUARANTINED = "quarantined"
    """A fact failed too often and was set aside."""
    SUPERSEDED = "superseded"
    """A newer answer to its question took the place of a fact."""
    FORGOTTEN = "forgotten"
    """A fact was forgotten: the served weights never saw it."""
    ROLLED_BACK = "rolled_back"
    """An earlier version is served."""
    REBUILDING = "rebuilding"
    """A branch is being built. Its progress is passing."""
    OPERATION_FAILED = "operation_failed"
    """An operation failed; what is served stayed as it was."""
    CLEAN_UP_FAILED = "clean_up_failed"
    """Some of what a forgotten fact left could not be removed; that is tried again."""
    DRIFT_ACCEPTED = "drift_accepted"
    """Weights that replayed differently are served, by the operator's decision."""
    RETAUGHT = "retaught"
    """A review found that the weights had lost a held fact, and it was taught again."""
    REQUEUED = "requeued"
    """A fact was queued again: on request, or because a nearer version had to be served."""
    GAP = "gap"
    """Some of the events after the requested one are no longer kept."""
    LEARNER_DOWN = "learner_down"
    """The learner died or could not be started."""
    LEARNER_READY = "learner_ready"
    """The learner serves the head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        sequence: grows by one with every stored event; 0 if it is never stored.
        kind: what happened.
        at: when.
        fact_id: empty if it is about no fact.
        model_version: the head at that time.
        message: for people. No program decides by it.
        learning: findings of the attempt that ended; with the first step, what is known by then.
        step: of a `STEP`.
        step_number: of the attempt, from 1; 0 if it is not known.
    """

    sequence: int
    kind: EventKind
    at: datetime
    fact_id: str = ""
    model_version: int = 0
    message: str = ""
    learning: Learning | None = None
    step: Step | None = None
    step_number: int = 0
