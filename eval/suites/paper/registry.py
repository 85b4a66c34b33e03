"""The four experiments by number, and the plan of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from eval.errors import RequestError
from eval.suites.paper import batch_of_ten, many_steps, one_fact, rate_sweep
from eval.suites.paper.facts import facts_of
from eval.suites.paper.protocol import Protocol
from eval.suites.paper.trials import Subject, Trial


@dataclass(frozen=True, slots=True)
class Experiment:
    """What the four have in common."""

    title: str
    plan: Callable[[Subject, Protocol], Iterator[Trial]]


EXPERIMENTS = {
    one_fact.NUMBER: Experiment(one_fact.TITLE, one_fact.plan),
    batch_of_ten.NUMBER: Experiment(batch_of_ten.TITLE, batch_of_ten.plan),
    rate_sweep.NUMBER: Experiment(rate_sweep.TITLE, rate_sweep.plan),
    many_steps.NUMBER: Experiment(many_steps.TITLE, many_steps.plan),
}


def chosen_experiments(text: str) -> tuple[int, ...]:
    """Reads numbers of experiments, joined by commas; ascending, none twice.

    Raises:
        RequestError: one is unknown.
    """
    parts = [part.strip() for part in text.split(",")]
    unknown = [part for part in parts if part not in map(str, EXPERIMENTS)]
    if unknown:
        raise RequestError(
            "experiments",
            f"unknown experiment {unknown[0]!r}: use some of {', '.join(map(str, EXPERIMENTS))},"
            " joined by commas",
        )
    return tuple(sorted(set(map(int, parts))))


def subjects(experiments: Sequence[int], fact_sets: Sequence[str], seed: int) -> list[Subject]:
    """One for each experiment and set of facts."""
    return [
        Subject(experiment=number, fact_set=name, facts=facts_of(name, seed), seed=seed)
        for number in experiments
        for name in fact_sets
    ]


def plan(subject: Subject, protocol: Protocol) -> Iterator[Trial]:
    """The trials of one experiment with one set of facts."""
    return EXPERIMENTS[subject.experiment].plan(subject, protocol)
