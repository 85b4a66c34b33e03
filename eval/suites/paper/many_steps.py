"""Experiment 4, figure 3: fifty steps on the batch of ten.

The scripts train another set of facts here, of which only the names are known. So these are the ten
facts of the other experiments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.suites.paper.facts import TaughtFact
from eval.suites.paper.measurements import Found, MeasuredCell
from eval.suites.paper.protocol import Protocol
from eval.suites.paper.trials import BASE_RATE, Stop, Subject, Trial

NUMBER = 4
TITLE = "a batch of ten, fifty steps"


def plan(subject: Subject, protocol: Protocol) -> Iterator[Trial]:
    """The base model, then a training at each rate."""
    numbers = protocol.many_steps

    def stop(trained: str, rate: float, step: int) -> Stop:
        call = subject.call(
            trained, rate, step, numbers.samples, numbers.sampling, facts=subject.facts
        )
        return Stop(step=step, calls=(call,))

    yield subject.trial("", (), BASE_RATE, [stop("", BASE_RATE, 0)])
    for rate in numbers.learning_rates:
        stops = [stop("all", rate, step) for step in numbers.asked_after]
        yield subject.trial("all", subject.all_pairs, rate, stops)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One training: a panel of figure 3.

    Attributes:
        learning_rate: of its steps.
        steps: after which was asked, ascending, S.
        found: [S][facts].
    """

    learning_rate: float
    steps: tuple[int, ...]
    found: tuple[tuple[Found, ...], ...]

    def over_facts(self, number: int) -> Found:
        """All ten at the n-th place."""
        return Found.of_all(self.found[number])

    def over_steps(self, fact: int) -> Found:
        """One fact, all places together."""
        return Found.of_all([found[fact] for found in self.found])


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyStepsSummary:
    """Experiment 4 with one set of facts."""

    facts: tuple[TaughtFact, ...]
    base: tuple[Found, ...]
    courses: tuple[Course, ...]


def summarise(subject: Subject, cells: Sequence[MeasuredCell]) -> ManyStepsSummary:
    """Orders the cells of a finished experiment."""
    by_place = {(c.key.learning_rate, c.key.step, c.key.fact_id): Found.of([c]) for c in cells}
    rates = sorted({c.key.learning_rate for c in cells if c.key.step})
    steps = tuple(sorted({c.key.step for c in cells if c.key.step}))
    return ManyStepsSummary(
        facts=subject.facts,
        base=tuple(by_place[BASE_RATE, 0, fact.id] for fact in subject.facts),
        courses=tuple(
            Course(
                learning_rate=rate,
                steps=steps,
                found=tuple(
                    tuple(by_place[rate, step, fact.id] for fact in subject.facts) for step in steps
                ),
            )
            for rate in rates
        ),
    )
