"""Events: what happened, in the order in which it happened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from memory_store.vocabulary.updates import Learning, Step


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
