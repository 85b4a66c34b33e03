"""Experiment 3, figure 2: five hundred rates, three steps each on the batch of ten.

It is about the noise that more than one step brings, so that is measured: how much neighboring
rates differ, compared with what chance alone would do to their counts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.suites.paper.courses import CoursesSummary, plan_courses, summarize_courses
from eval.suites.paper.measurements import Measurement, Pooled
from eval.suites.paper.protocol import Protocol
from eval.suites.paper.trials import Subject, Trial

NUMBER = 3
TITLE = "a batch of ten, three steps, at each of many rates"


def plan(subject: Subject, protocol: Protocol) -> Iterator[Trial]:
    """The base model, then a training at each rate."""
    numbers = protocol.rate_sweep
    rates, steps = numbers.rates.rates(subject.seed), range(1, numbers.steps + 1)
    return plan_courses(subject, rates, steps, numbers.samples, protocol.fixed)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSummary(CoursesSummary):
    """Experiment 3 with one set of facts.

    Attributes:
        noise: for each step, the mean square difference of a fact's shares at neighboring rates,
            divided by the one that chance alone would show in counts of that many samples: 1 is a
            smooth curve, seen through sampling. None if no answer was right.
    """

    noise: tuple[float | None, ...]

    @property
    def rates(self) -> tuple[float, ...]:
        """Ascending."""
        return tuple(course.learning_rate for course in self.courses)

    def best(self, step: int) -> int:
        """Number of the rate with most right answers after a step; of equal ones the lowest."""
        counts = [course.over_facts(step).count.count for course in self.courses]
        return counts.index(max(counts))


def summarize(subject: Subject, cells: Sequence[Measurement]) -> SweepSummary:
    """Orders the cells of a finished experiment."""
    summary = summarize_courses(subject, cells)
    by_step = zip(*(course.results for course in summary.courses), strict=True)
    return SweepSummary(
        facts=summary.facts,
        base=summary.base,
        courses=summary.courses,
        noise=tuple(_noise(by_rate) for by_rate in by_step),
    )


def _noise(by_rate: Sequence[Sequence[Pooled]]) -> float | None:
    """Of counts c, d of n samples each, E (c - d)^2 = 2 n p (1 - p) if both have the same p."""
    squares, by_chance = [], []
    for one, other in itertools.pairwise(by_rate):
        for left, right in zip(one, other, strict=True):
            total = left.count.total + right.count.total
            share = (left.count.count + right.count.count) / total
            squares.append((left.count.count - right.count.count) ** 2)
            # Unbiased: of N samples, s (1 - s) is too low by (N - 1) / N.
            by_chance.append(total * share * (1 - share) * total / (total - 1))
    expected = math.fsum(by_chance)
    return math.fsum(squares) / expected if expected else None
