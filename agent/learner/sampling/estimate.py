"""How likely an answer is, from few samples of which perhaps none says it.

Along each sampled text, and before each of its tokens, the probability that the next tokens spell
the answer is computed exactly, by the distribution that is sampled from. Their sum over the text
estimates the probability that the answer occurs: each first occurrence begins somewhere, and given
the text before, begins there with just this probability (the sum is the compensator of the counting
process that jumps at the first occurrence; the two have the same mean). Where the answer occurs
otherwise than in one of the spellings that are looked for (other tokens, another case), the sample
counts 1 as in plain counting, so that nothing is missed: the estimator is unbiased for what plain
counting estimates.

It varies less than plain counting where the answer is rare. Where it is frequent it varies more:
the sum can exceed 1. And it cannot know what it never met: beginnings that no sample has, but that
make the answer likely, and other spellings that no sample says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Sums are kept in whole multiples of this, so that they do not depend on the order of the samples.
_UNIT = 2.0**-60


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """The probability that an answer occurs in a sampled text.

    Attributes:
        probability: the mean over the samples.
        standard_error: of this mean; 0 if all samples have the same value.
        samples: their number.
        otherwise: samples that said the answer in a spelling that was not looked for.
        tokens: sampled.
        extra_tokens: read by the model only to look ahead; the estimate's cost.
    """

    probability: float
    standard_error: float
    samples: int
    otherwise: int
    tokens: int
    extra_tokens: int

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Confidence interval by the normal approximation, inside 0 to 1.

        If no sample met the answer or a chance of it, its upper end is Wilson's for no success.
        """
        if self.probability == 0:
            return 0.0, z * z / (self.samples + z * z)
        half = z * self.standard_error
        return max(0.0, self.probability - half), min(1.0, self.probability + half)

    @property
    def gain(self) -> float:
        """Variance of plain counting at the same cost in tokens, divided by this one's.

        Above 1, so many times more tokens would have to be sampled to know as much by counting. NaN
        if it cannot be told, as all samples have the same value.
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
            chance: sum of the probabilities along it.
            otherwise: the answer occurred, in a spelling that was not looked for.
            extra_tokens: read to look ahead.
        """
        value = chance + otherwise
        self._otherwise += otherwise
        self._extra_tokens += extra_tokens
        self._count += 1
        self._sum += round(value / _UNIT)
        self._squares += round(value * value / _UNIT)

    def estimate(self, tokens: int) -> Estimate:
        """From at least one sample; the samples' tokens come along."""
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
