"""A run of the suite `paper`: the request, and the summaries of its experiments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from eval.errors import RequestError
from eval.suites.paper import batch_of_ten, many_steps, one_fact, rate_sweep
from eval.suites.paper.batch_of_ten import BatchSummary
from eval.suites.paper.cell_store import CellStore
from eval.suites.paper.courses import CoursesSummary, summarize_courses
from eval.suites.paper.facts import FACT_SETS, PAPER, PAPER_FACTS
from eval.suites.paper.measurements import Measurement
from eval.suites.paper.one_fact import OneFactSummary
from eval.suites.paper.protocol import PROTOCOLS, Protocol, describe_scale, scale_of, scaled
from eval.suites.paper.rate_sweep import SweepSummary
from eval.suites.paper.reference import MODEL
from eval.suites.paper.registry import chosen_experiments, plan, subjects
from eval.suites.paper.trials import Subject, Trial

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the results depend on, apart from model, code and environment.

    Attributes:
        protocol: `code` or `paper`.
        scale: as the user wrote it.
        share: of the full cost, 0 to 1; 0 is the smallest.
        experiments: their numbers.
        fact_sets: `paper`, `held-out`.
        seed: of rates, samples and held-out facts.
        estimates: also estimate rare answers along the sampled paths.
    """

    protocol: str
    scale: str
    share: float
    experiments: tuple[int, ...]
    fact_sets: tuple[str, ...]
    seed: int
    estimates: bool

    @classmethod
    def parse(
        cls,
        *,
        protocol: str,
        scale: str,
        experiments: str,
        fact_sets: str,
        seed: int,
        estimates: bool,
    ) -> Self:
        """Reads what a user wrote; several names are joined by commas.

        Raises:
            RequestError: one of them is unknown.
        """
        if protocol not in PROTOCOLS:
            raise RequestError("protocol", f"choose {' or '.join(PROTOCOLS)}")
        names = tuple(dict.fromkeys(name.strip() for name in fact_sets.split(",")))
        if unknown := set(names) - set(FACT_SETS):
            raise RequestError(
                "fact-sets",
                f"unknown facts {min(unknown)!r}: use some of {', '.join(FACT_SETS)}",
            )
        return cls(
            protocol=protocol,
            scale=scale,
            share=scale_of(scale),
            experiments=chosen_experiments(experiments),
            fact_sets=names,
            seed=seed,
            estimates=estimates,
        )

    @property
    def numbers(self) -> Protocol:
        """The protocol's numbers at this scale."""
        return scaled(PROTOCOLS[self.protocol], self.share)

    @property
    def scale_text(self) -> str:
        """What the scale left of the protocol."""
        return describe_scale(PROTOCOLS[self.protocol], self.numbers, self.experiments)

    @property
    def subjects(self) -> list[Subject]:
        """One for each experiment and set of facts."""
        return subjects(self.experiments, self.fact_sets, self.seed)

    def trials(self) -> list[Trial]:
        """All trials, in order."""
        return [trial for subject in self.subjects for trial in plan(subject, self.numbers)]

    def as_json(self) -> dict[str, Any]:
        """The settings of a results folder."""
        return {
            "suite": "paper",
            "protocol": self.protocol,
            "scale": self.scale,
            "experiments": list(self.experiments),
            "fact_sets": list(self.fact_sets),
            "seed": self.seed,
            "estimates": self.estimates,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """The results of one model.

    Attributes:
        request: what was measured.
        model: its name.
        one_fact: experiment 1, by set of facts; empty if it was not run.
        batch_of_ten: experiment 2, by set of facts.
        rate_sweep: experiment 3, by set of facts.
        many_steps: experiment 4, by set of facts.
        zogron_loss: training loss of the first fact before any step, nats a token; None if
            experiment 1 was not run with the paper's facts.
        cells: all of them, in the order of their keys.
        notes: deviations from the protocol.
    """

    request: Request
    model: str
    one_fact: dict[str, OneFactSummary]
    batch_of_ten: dict[str, BatchSummary]
    rate_sweep: dict[str, SweepSummary]
    many_steps: dict[str, CoursesSummary]
    zogron_loss: float | None
    cells: tuple[Measurement, ...]
    notes: tuple[str, ...]

    @property
    def published_model(self) -> bool:
        """Whether the published numbers are of this model."""
        return self.model == MODEL

    @property
    def tokens(self) -> int:
        """How many were sampled."""
        return sum(cell.tokens for cell in self.cells)


def summarize_run(request: Request, model: str, store: CellStore) -> RunSummary:
    """Reads a finished run."""
    read = [(s, store.cells(s.experiment, s.fact_set)) for s in request.subjects]

    def summaries(
        number: int, summarize: Callable[[Subject, list[Measurement]], S]
    ) -> dict[str, S]:
        return {s.fact_set: summarize(s, cells) for s, cells in read if s.experiment == number}

    return RunSummary(
        request=request,
        model=model,
        one_fact=summaries(one_fact.NUMBER, one_fact.summarize),
        batch_of_ten=summaries(batch_of_ten.NUMBER, batch_of_ten.summarize),
        rate_sweep=summaries(rate_sweep.NUMBER, rate_sweep.summarize),
        many_steps=summaries(many_steps.NUMBER, summarize_courses),
        zogron_loss=_first_loss(store),
        cells=tuple(cell for _, cells in read for cell in cells),
        notes=tuple(store.notes()),
    )


def _first_loss(store: CellStore) -> float | None:
    """The loss of the base model, which is the same before the first step at every rate."""
    zogron = PAPER_FACTS[0].id
    for (trained, _, step), loss in store.losses(one_fact.NUMBER, PAPER).items():
        if (trained, step) == (zogron, 1):
            return loss
    return None
