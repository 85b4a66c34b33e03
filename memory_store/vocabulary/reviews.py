"""Reviews of held facts, and how long facts are retained."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from memory_store.vocabulary.policies import Policy
from memory_store.vocabulary.probes import NewProbe
from memory_store.vocabulary.updates import Learning, NewUpdate


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
