"""Experiment 3, figure 2: five hundred rates, three steps each on the batch of ten.

It is about the noise that more than one step brings, so that is measured: how much neighbouring
rates differ, against what chance alone would do to their counts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.suites.paper.facts import TaughtFact
from eval.suites.paper.measurements import Found, MeasuredCell
from eval.suites.paper.protocol import Protocol
from eval.suites.paper.trials import BASE_RATE, Stop, Subject, Trial

NUMBER = 3
TITLE = "a batch of ten, three steps, at each of many rates"


def plan(subject: Subject, protocol: Protocol) -> Iterator[Trial]:
    """The base model, then a training at each rate."""
    numbers = protocol.rate_sweep

    def stop(trained: str, rate: float, step: int) -> Stop:
        call = subject.call(
            trained, rate, step, numbers.samples, protocol.fixed, facts=subject.facts
        )
        return Stop(step=step, calls=(call,))

    yield subject.trial("", (), BASE_RATE, [stop("", BASE_RATE, 0)])
    for rate in numbers.rates.rates(subject.seed):
        stops = [stop("all", rate, step) for step in range(1, numbers.steps + 1)]
        yield subject.trial("all", subject.all_pairs, rate, stops)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSummary:
    """Experiment 3 with one set of facts.

    Attributes:
        facts: the ten, F.
        base: before any step, by fact.
        rates: ascending, R.
        found: [steps][R][F].
        noise: for each step, the mean square difference of a fact's shares at neighbouring rates,
            over what counts of that many samples would show by chance: 1 is a smooth curve, seen
            by sampling. None if no answer was right.
    """

    facts: tuple[TaughtFact, ...]
    base: tuple[Found, ...]
    rates: tuple[float, ...]
    found: tuple[tuple[tuple[Found, ...], ...], ...]
    noise: tuple[float | None, ...]

    def average(self, rate: int, fact: int) -> Found:
        """A point of figure 2: a fact at a rate, over all steps."""
        return Found.of_all([step[rate][fact] for step in self.found])

    def over_facts(self, step: int, rate: int) -> Found:
        """All ten at one rate after one step."""
        return Found.of_all(self.found[step][rate])

    def best(self, step: int) -> int:
        """Number of the rate with most right answers after a step; of equal ones the lowest."""
        return max(range(len(self.rates)), key=lambda n: (self.over_facts(step, n).count.count, -n))


def summarise(subject: Subject, cells: Sequence[MeasuredCell]) -> SweepSummary:
    """Orders the cells of a finished experiment."""
    by_place = {(c.key.step, c.key.learning_rate, c.key.fact_id): Found.of([c]) for c in cells}
    rates = tuple(sorted({c.key.learning_rate for c in cells if c.key.step}))
    steps = sorted({c.key.step for c in cells if c.key.step})
    found = tuple(
        tuple(tuple(by_place[step, rate, fact.id] for fact in subject.facts) for rate in rates)
        for step in steps
    )
    return SweepSummary(
        facts=subject.facts,
        base=tuple(by_place[0, BASE_RATE, fact.id] for fact in subject.facts),
        rates=rates,
        found=found,
        noise=tuple(_noise(step) for step in found),
    )


def _noise(by_rate: Sequence[Sequence[Found]]) -> float | None:
    """Of counts c, d of n samples each, E (c - d)^2 = 2 n p (1 - p) if both have the same p."""
    seen, by_chance = [], []
    for one, other in itertools.pairwise(by_rate):
        for left, right in zip(one, other, strict=True):
            total = left.count.total + right.count.total
            share = (left.count.count + right.count.count) / total
            seen.append((left.count.count - right.count.count) ** 2)
            # Unbiased: of N samples, s (1 - s) is too low by (N - 1) / N.
            by_chance.append(total * share * (1 - share) * total / (total - 1))
    expected = math.fsum(by_chance)
    return math.fsum(seen) / expected if expected else None
