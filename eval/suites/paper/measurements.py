"""What came of a cell, and of several together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from eval.metrics import Z_95, Count, wilson_interval
from eval.suites.paper.trials import CellKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A cell that is done.

    Attributes:
        key: which.
        question: what was asked.
        answer: what was expected.
        samples: how many texts were sampled.
        correct: in how many the answer occurs.
        log_probability: of exactly the answer after `Q: {question} A:`, natural logarithm; None if
            the weights are broken.
        estimate: of the share of right texts, with less variance than counting; None if unknown.
        estimate_error: its standard error; None likewise.
        temperature: as sampled.
        top_p: likewise.
        top_k: likewise.
        max_new_tokens: likewise.
        tokens: how many were sampled.
        extra_tokens: how many the model read besides, for the estimate alone.
        examples: a few of the texts, right ones first.
    """

    key: CellKey
    question: str
    answer: str
    samples: int
    correct: int
    log_probability: float | None
    estimate: float | None
    estimate_error: float | None
    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    tokens: int
    extra_tokens: int
    examples: tuple[str, ...]

    @property
    def count(self) -> Count:
        """Right of all."""
        return Count(count=self.correct, total=self.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """Some cells together.

    Attributes:
        count: right texts of all.
        probability: mean probability of exactly the answer under the Q/A prompt; None if unknown.
        estimate: of the share of right texts, with less variance; None if unknown.
        estimate_error: its standard error.
        tokens: how many were sampled.
        extra_tokens: how many the model read besides, for the estimate alone.
    """

    count: Count
    probability: float | None
    estimate: float | None
    estimate_error: float | None
    tokens: int
    extra_tokens: int

    @classmethod
    def of(cls, cells: Sequence[Measurement]) -> Self:
        """Cells of the same number of samples each."""
        return cls.of_all(
            [
                Pooled(
                    count=cell.count,
                    probability=_probability(cell.log_probability),
                    estimate=cell.estimate,
                    estimate_error=cell.estimate_error,
                    tokens=cell.tokens,
                    extra_tokens=cell.extra_tokens,
                )
                for cell in cells
            ]
        )

    @classmethod
    def of_all(cls, parts: Iterable[Pooled]) -> Self:
        """Several with the same denominator."""
        listed = list(parts)
        estimates = _known([part.estimate for part in listed])
        errors = _known([part.estimate_error for part in listed])
        probabilities = _known([part.probability for part in listed])
        return cls(
            count=Count(
                count=sum(part.count.count for part in listed),
                total=sum(part.count.total for part in listed),
            ),
            probability=_mean(probabilities),
            estimate=_mean(estimates),
            # Cells are sampled independently of each other.
            estimate_error=math.hypot(*errors) / len(errors) if errors else None,
            tokens=sum(part.tokens for part in listed),
            extra_tokens=sum(part.extra_tokens for part in listed),
        )

    @property
    def estimate_interval(self) -> tuple[float, float] | None:
        """The estimate's 95% interval; None if unknown."""
        if self.estimate is None or self.estimate_error is None:
            return None
        if not self.estimate:
            # No path came near the answer: no more is known than from counting none.
            return wilson_interval(0, self.count.total)
        half = Z_95 * self.estimate_error
        return max(0.0, self.estimate - half), min(1.0, self.estimate + half)

    @property
    def gain(self) -> float | None:
        """How many times more tokens plain counting would take to know the share as well.

        None if it cannot be told: nothing was found, or all samples had the same value.
        """
        if not self.estimate or not self.estimate_error or self.estimate >= 1:
            return None
        counting = self.estimate * (1 - self.estimate) / self.count.total
        cost = self.tokens / (self.tokens + self.extra_tokens)
        return counting * cost / self.estimate_error**2


def _known(numbers: Sequence[float | None]) -> list[float]:
    """All of them, or none if one is missing: a mean of some would be another quantity."""
    known = [number for number in numbers if number is not None]
    return known if len(known) == len(numbers) else []


def _mean(numbers: Sequence[float]) -> float | None:
    return math.fsum(numbers) / len(numbers) if numbers else None


def _probability(log_probability: float | None) -> float | None:
    return None if log_probability is None else math.exp(log_probability)
