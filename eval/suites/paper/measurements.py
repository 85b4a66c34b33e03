"""The measurement of a cell, and several of them pooled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from eval.metrics import Z_95, Count, wilson_interval
from eval.suites.paper.trials import CellKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A measured cell.

    Attributes:
        key: of the cell.
        question: what was asked.
        answer: what was expected.
        samples: how many texts were sampled.
        correct: how many of them contain the answer.
        log_probability: of exactly the answer after `Q: {question} A:`, natural logarithm; None if
            the weights are broken.
        estimate: of the share of right texts, with less variance than counting; None if unknown.
        estimate_error: its standard error; None if unknown.
        temperature: of sampling, as the next three.
        top_p: see `Sampling`.
        top_k: see `Sampling`.
        max_new_tokens: see `Sampling`.
        tokens: how many were sampled.
        extra_tokens: how many more the model read, only for the estimate.
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
        """Right texts of all texts."""
        return Count(self.correct, self.samples)

    @property
    def probability(self) -> float | None:
        """Of exactly the answer; None if the weights are broken."""
        return None if self.log_probability is None else math.exp(self.log_probability)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """Several measurements, pooled; the attributes are those of `Measurement`.

    Attributes:
        count: right texts of all texts.
        probability: the mean; None if one is unknown.
        estimate: the mean; None if one is unknown.
        estimate_error: its standard error; None if one is unknown.
        tokens: the sum.
        extra_tokens: the sum.
    """

    count: Count
    probability: float | None
    estimate: float | None
    estimate_error: float | None
    tokens: int
    extra_tokens: int

    @classmethod
    def of(cls, parts: Sequence[Measurement | Pooled]) -> Self:
        """Pools parts with the same number of samples each."""
        errors = _known([part.estimate_error for part in parts])
        return cls(
            count=Count.sum(part.count for part in parts),
            probability=_mean(_known([part.probability for part in parts])),
            estimate=_mean(_known([part.estimate for part in parts])),
            # Cells are sampled independently of each other.
            estimate_error=math.hypot(*errors) / len(errors) if errors else None,
            tokens=sum(part.tokens for part in parts),
            extra_tokens=sum(part.extra_tokens for part in parts),
        )

    @property
    def estimate_interval(self) -> tuple[float, float] | None:
        """The estimate's 95% interval; None if unknown."""
        if self.estimate is None or self.estimate_error is None:
            return None
        if not self.estimate:
            # No path came near the answer: this is no better than counting none.
            return wilson_interval(0, self.count.total)
        half = Z_95 * self.estimate_error
        return max(0.0, self.estimate - half), min(1.0, self.estimate + half)

    @property
    def gain(self) -> float | None:
        """How many times the tokens counting alone would need for the same certainty.

        None if that is unknown: no answer was found, or all samples had the same value.
        """
        if not self.estimate or not self.estimate_error or self.estimate >= 1:
            return None
        counting = self.estimate * (1 - self.estimate) / self.count.total
        cost = self.tokens / (self.tokens + self.extra_tokens)
        return counting * cost / self.estimate_error**2


def _known(numbers: Sequence[float | None]) -> list[float]:
    """All of them, or none if one is missing, as a mean of some would be something else."""
    known = [number for number in numbers if number is not None]
    return known if len(known) == len(numbers) else []


def _mean(numbers: Sequence[float]) -> float | None:
    return math.fsum(numbers) / len(numbers) if numbers else None
