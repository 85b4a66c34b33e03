"""Which rate a step will need, told from steps before it: the paper's future work.

The paper finds the best rate of a fact by trying all (Curt 2024, experiment 1) and leaves dynamic
rates to the future. Here a linear model of what is known before a step says where to look first;
what is chosen is still seen on the fact itself (`rates.compare`), so a bad guess costs time only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from agent.teaching.rates import GRID
from memory_store.vocabulary import Step

# With fewer rows there is no predictor: a handful of coefficients would follow their noise.
MIN_ROWS = 30
# Only the last steps are looked at: rates change as more is taught.
RECENT_STEPS = 500
# Against standardised features, so it is worth one row of thirty or of five hundred.
RIDGE = 1.0
_SMALLEST_NORM = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What is known before a step.

    Attributes:
        loss: of the fact, nats a token.
        gradient_norm: over all trained weights.
        answer_tokens: terminator included.
        first: no step was taken for this fact.
    """

    loss: float
    gradient_norm: float
    answer_tokens: int
    first: bool

    def numbers(self) -> tuple[float, ...]:
        """In the order of the coefficients; the norm by its size, as rates are."""
        norm = math.log10(max(self.gradient_norm, _SMALLEST_NORM))
        return (self.loss, norm, float(self.answer_tokens), float(self.first))


@dataclass(frozen=True, slots=True)
class Row:
    """One step of the past: what was known, and the rate that was chosen."""

    features: Features
    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePredictor:
    """A linear model of the logarithm of the rate.

    Attributes:
        intercept: log10 of the rate where all features are 0.
        coefficients: one for each of `Features.numbers`.
        spread: standard deviation of the residuals, in log10 of the rate.
        rows: how many it was fitted on.
    """

    intercept: float
    coefficients: tuple[float, ...]
    spread: float
    rows: int

    def predict(self, features: Features) -> float:
        """The rate to be expected, within the range of the candidates."""
        pairs = zip(self.coefficients, features.numbers(), strict=True)
        logarithm = math.fsum([self.intercept, *(slope * number for slope, number in pairs)])
        lowest, highest = math.log10(GRID[0]), math.log10(GRID[-1])
        if not lowest < logarithm < highest:
            return GRID[0] if logarithm <= lowest else GRID[-1]
        return math.pow(10.0, logarithm)

    def as_numbers(self) -> tuple[float, ...]:
        """For `Policy.predictor`."""
        return (self.spread, float(self.rows), self.intercept, *self.coefficients)

    @classmethod
    def of_numbers(cls, numbers: Sequence[float]) -> Self:
        """The inverse of `as_numbers`."""
        spread, rows, intercept, *coefficients = numbers
        return cls(
            intercept=intercept, coefficients=tuple(coefficients), spread=spread, rows=int(rows)
        )


def fit(rows: Sequence[Row]) -> RatePredictor:
    """Ridge regression of log10 of the rate on the features, in closed form.

    b = (Z'Z + k I)^-1 Z'(y - mean(y)), with Z the features less their means, by their standard
    deviations; the intercept is not shrunk (Hoerl & Kennard 1970, "Ridge Regression: Biased
    Estimation for Nonorthogonal Problems", equation 2.1).

    Args:
        rows: at least one, finite. A feature that never varies gets the coefficient 0.
    """
    features = np.array([row.features.numbers() for row in rows], dtype=np.float64)  # [R, F]
    targets = np.log10(np.array([row.learning_rate for row in rows], dtype=np.float64))  # [R]
    # Equal numbers may have a deviation by rounding, which would be blown up.
    varies = np.ptp(features, axis=0) > 0
    means, scales = features.mean(0), np.where(varies, features.std(0), 1.0)
    standard = np.where(varies, (features - means) / scales, 0.0)
    penalty = RIDGE * np.eye(features.shape[1])
    slopes = np.linalg.solve(
        standard.T @ standard + penalty, standard.T @ (targets - targets.mean())
    )
    coefficients = slopes / scales
    residuals = targets - targets.mean() - standard @ slopes
    freedom = max(1, len(rows) - features.shape[1] - 1)
    return RatePredictor(
        intercept=float(targets.mean() - means @ coefficients),
        coefficients=tuple(coefficients.tolist()),
        spread=math.sqrt(float(residuals @ residuals) / freedom),
        rows=len(rows),
    )


def rows_of(steps: Sequence[Step]) -> list[Row]:
    """What the steps of one update, from its first on, tell: those whose rates were compared."""
    return [
        Row(
            Features(
                loss=step.loss,
                gradient_norm=step.gradient_norm,
                answer_tokens=step.answer_tokens,
                first=number == 0,
            ),
            step.learning_rate,
        )
        for number, step in enumerate(steps)
        if step.candidates and math.isfinite(step.gradient_norm)
    ]


def predictor_of(history: Sequence[Sequence[Step]]) -> RatePredictor | None:
    """What the last steps of a history tell; None if they are too few.

    Args:
        history: the steps of each update, oldest first.
    """
    rows = [row for steps in history for row in rows_of(steps)][-RECENT_STEPS:]
    return fit(rows) if len(rows) >= MIN_ROWS else None
