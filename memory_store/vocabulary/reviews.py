"""Reviews of held facts, and how long facts are retained."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from memory_store.vocabulary.policies import Policy
from memory_store.vocabulary.probes import NewProbe
from memory_store.vocabulary.updates import Attempt


class ReviewOutcome(StrEnum):
    """The result of a review."""

    HELD = "held"
    """The weights still answered the fact."""
    RETAUGHT = "retaught"
    """The weights had lost it, and it was taught again by an update."""
    RESISTED = "resisted"
    """The weights had lost it, and the update was refused. The weights were put back."""
    FAILED = "failed"
    """It could not be asked, or not be taught again."""
    SKIPPED = "skipped"
    """On a branch only: the fact was not held there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReview:
    """A review that was carried out, before it is stored; see `Review`.

    Attributes:
        fact_id: of the fact that was asked.
        model_version: the version that was asked.
        outcome: the result.
        reason: why a lost fact could not be taught again, for people.
        probe: of the fact's own question before any update; None if it could not be asked.
        policy: by which the fact is taught again.
        attempt: that taught it again; None if none did.
    """

    fact_id: str
    model_version: int
    outcome: ReviewOutcome
    reason: str = ""
    probe: NewProbe | None = None
    policy: Policy | None = None
    attempt: Attempt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A held fact was asked again: an input of the history, as a teaching is.

    Attributes:
        id: from 1, in the order of reviews.
        fact_id: of the fact.
        after_position: when it was made, the facts up to this position had been processed, and no
            others.
        model_version: the version that was asked.
        outcome: the result.
        reason: why a lost fact could not be taught again, for people.
        retaught_version: the version that taught it again; None if none did.
        probability: of the fact's answer, 0 to 1; None if it could not be asked.
        age: updates since the fact was taught last.
        reviewed_at: when.
        policy: by which the fact was, or would have been, taught again; a branch repeats it.
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
    policy: Policy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How many facts in a range of ages were still held when they were reviewed.

    Attributes:
        youngest: the smallest age of the range, in updates since the fact was taught last.
        oldest: the largest age of the range.
        held: reviews that found the fact held.
        asked: all reviews in the range.
    """

    youngest: int
    oldest: int
    held: int
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPoint:
    """A probe of a fact's own question: the version asked, its probability (0 to 1), and when."""

    model_version: int
    probability: float
    probed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FactRetention:
    """How well a held fact was answered in its last probes.

    Attributes:
        fact_id: of the fact.
        age: updates since it was taught last.
        points: its last probes, newest first.
    """

    fact_id: str
    age: int
    points: tuple[RetentionPoint, ...]
