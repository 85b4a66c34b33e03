"""Trainings on the batch of ten at several rates, with questions after some of their steps.

Experiments 3 and 4 are of this kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.suites.paper.facts import TaughtFact
from eval.suites.paper.measurements import Measurement, Pooled
from eval.suites.paper.protocol import Fixed, Varied
from eval.suites.paper.trials import ALL_FACTS, BASE_RATE, Stop, Subject, Trial


def plan_courses(
    subject: Subject,
    rates: Sequence[float],
    steps: Sequence[int],
    samples: int,
    sampling: Fixed | Varied,
) -> Iterator[Trial]:
    """The base model, then a training at each rate, with questions after each of these steps."""

    def stop(trained: str, rate: float, step: int) -> Stop:
        call = subject.call(trained, rate, step, samples, sampling, facts=subject.facts)
        return Stop(step=step, calls=(call,))

    yield subject.trial("", BASE_RATE, [stop("", BASE_RATE, 0)])
    for rate in rates:
        yield subject.trial(ALL_FACTS, rate, [stop(ALL_FACTS, rate, step) for step in steps])


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One training.

    Attributes:
        learning_rate: of its steps.
        steps: after which questions were asked, ascending, S.
        results: [S][facts].
    """

    learning_rate: float
    steps: tuple[int, ...]
    results: tuple[tuple[Pooled, ...], ...]

    @property
    def best(self) -> int:
        """The place with most right answers to all ten; of equal ones the first."""
        counts = [self.over_facts(place).count.count for place in range(len(self.steps))]
        return counts.index(max(counts))

    def over_facts(self, place: int) -> Pooled:
        """All ten facts at one place of `steps`."""
        return Pooled.of(self.results[place])

    def over_steps(self, fact: int) -> Pooled:
        """One fact, all steps together."""
        return Pooled.of([results[fact] for results in self.results])


@dataclass(frozen=True, slots=True, kw_only=True)
class CoursesSummary:
    """The trainings of one experiment with one set of facts.

    Attributes:
        facts: the ten.
        base: before any step, by fact.
        courses: by rate, ascending.
    """

    facts: tuple[TaughtFact, ...]
    base: tuple[Pooled, ...]
    courses: tuple[Course, ...]


def summarize_courses(subject: Subject, cells: Sequence[Measurement]) -> CoursesSummary:
    """Orders the cells of a finished experiment."""
    by_key = {(c.key.learning_rate, c.key.step, c.key.fact_id): Pooled.of([c]) for c in cells}
    rates = sorted({c.key.learning_rate for c in cells if c.key.step})
    steps = tuple(sorted({c.key.step for c in cells if c.key.step}))

    def of_all_facts(rate: float, step: int) -> tuple[Pooled, ...]:
        return tuple(by_key[rate, step, fact.id] for fact in subject.facts)

    courses = [
        Course(
            learning_rate=rate,
            steps=steps,
            results=tuple(of_all_facts(rate, step) for step in steps),
        )
        for rate in rates
    ]
    return CoursesSummary(
        facts=subject.facts, base=of_all_facts(BASE_RATE, 0), courses=tuple(courses)
    )
