"""Estimates how likely an answer is from few samples, even if none of them contains it.

Before each token of a sampled text, the probability that the next tokens spell the answer is
computed exactly, under the distribution that is sampled from. The sum over the text estimates the
probability that the answer occurs: a first occurrence begins at one place, and given the text
before, it begins there with exactly this probability. (The sum is the compensator of the counting
process that jumps at the first occurrence; both have the same mean.) If the answer occurs in a
spelling that was not looked for (other tokens, another case), the sample counts 1, as in plain
counting. So the estimator is unbiased for what plain counting estimates.

Its variance is below that of plain counting if the answer is rare, and above if it is frequent: the
sum can exceed 1. It cannot see beginnings of texts that no sample has but that make the answer
likely, nor spellings that occur in no sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Sums are integers in this unit, so that they do not depend on the order of the samples.
_UNIT = 2.0**-60


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """The probability that an answer occurs in a sampled text.

    Attributes:
        probability: mean over the samples.
        standard_error: of the mean; 0 if all samples have the same value.
        samples: number of samples.
        otherwise: number of samples with the answer in a spelling that was not looked for.
        tokens: number of sampled tokens.
        extra_tokens: number of tokens read only to look ahead: the cost of the estimate.
    """

    probability: float
    standard_error: float
    samples: int
    otherwise: int
    tokens: int
    extra_tokens: int

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Confidence interval by the normal approximation, inside 0 to 1.

        If the probability is 0, the upper end is that of Wilson's interval for no success.
        """
        if self.probability == 0:
            return 0.0, z * z / (self.samples + z * z)
        half = z * self.standard_error
        return max(0.0, self.probability - half), min(1.0, self.probability + half)

    @property
    def gain(self) -> float:
        """Variance of plain counting at the same cost in tokens, divided by that of this estimate.

        Plain counting would need this many times the tokens for the same precision. NaN if all
        samples have the same value.
        """
        variance = self.samples * self.standard_error**2
        if not variance:
            return math.nan
        counted = max(0.0, self.probability * (1 - self.probability))
        return counted * self.tokens / (variance * (self.tokens + self.extra_tokens))


class Sums:
    """Sums over samples, the same in any order."""

    def __init__(self) -> None:
        self._count = self._sum = self._squares = self._otherwise = self._extra_tokens = 0

    def add(self, chance: float, *, otherwise: bool = False, extra_tokens: int = 0) -> None:
        """Adds a sample.

        Args:
            chance: sum of the probabilities along its text.
            otherwise: the answer occurred in a spelling that was not looked for.
            extra_tokens: number of tokens read to look ahead.
        """
        value = chance + otherwise
        self._otherwise += otherwise
        self._extra_tokens += extra_tokens
        self._count += 1
        self._sum += round(value / _UNIT)
        self._squares += round(value * value / _UNIT)

    def estimate(self, tokens: int) -> Estimate:
        """The estimate after at least one sample; `tokens` is the number of sampled tokens."""
        mean = self._sum * _UNIT / self._count
        spread = max(0.0, self._squares * _UNIT - self._count * mean * mean)
        variance = spread / max(1, self._count - 1)
        return Estimate(
            probability=mean,
            standard_error=math.sqrt(variance / self._count),
            samples=self._count,
            otherwise=self._otherwise,
            tokens=tokens,
            extra_tokens=self._extra_tokens,
        )
