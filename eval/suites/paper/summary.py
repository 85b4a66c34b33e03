"""A finished run of the suite `paper`: what was asked for, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eval.suites.paper import batch_of_ten, many_steps, one_fact, rate_sweep
from eval.suites.paper.batch_of_ten import BatchSummary
from eval.suites.paper.cell_store import RunStore
from eval.suites.paper.facts import PAPER, PAPER_FACTS
from eval.suites.paper.many_steps import ManyStepsSummary
from eval.suites.paper.measurements import MeasuredCell
from eval.suites.paper.one_fact import OneFactSummary
from eval.suites.paper.protocol import PROTOCOLS, Protocol, scale_told, scaled
from eval.suites.paper.rate_sweep import SweepSummary
from eval.suites.paper.reference import MODEL
from eval.suites.paper.registry import plan, subjects
from eval.suites.paper.trials import Subject, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the results depend on, beside model, code and environment.

    Attributes:
        protocol: `code` or `paper`.
        scale: as the user wrote it.
        share: of the full cost, 0 to 1; 0 is the smallest.
        experiments: their numbers.
        fact_sets: `paper`, `held-out`.
        seed: of rates and samples, and of the held-out facts.
        estimates: look for the answer beside each sampled path too.
    """

    protocol: str
    scale: str
    share: float
    experiments: tuple[int, ...]
    fact_sets: tuple[str, ...]
    seed: int
    estimates: bool

    @property
    def numbers(self) -> Protocol:
        """The protocol's numbers at this scale."""
        return scaled(PROTOCOLS[self.protocol], self.share)

    @property
    def scale_told(self) -> str:
        """What the scale left of the protocol."""
        return scale_told(PROTOCOLS[self.protocol], self.numbers, self.experiments)

    @property
    def subjects(self) -> list[Subject]:
        """One for each experiment and set of facts."""
        return subjects(self.experiments, self.fact_sets, self.seed)

    def trials(self) -> list[Trial]:
        """All that is to be done, in order."""
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
class Replay:
    """What one model did.

    Attributes:
        request: what was asked for.
        model: its name.
        one_fact: experiment 1, by set of facts; empty if it was not run.
        batch_of_ten: experiment 2, likewise.
        rate_sweep: experiment 3, likewise.
        many_steps: experiment 4, likewise.
        zogron_loss: training loss of the first fact before any step, nats a token; None if
            experiment 1 was not run with the paper's facts.
        cells: all of them, in the order of their keys.
        notes: departures from the protocol.
    """

    request: Request
    model: str
    one_fact: dict[str, OneFactSummary]
    batch_of_ten: dict[str, BatchSummary]
    rate_sweep: dict[str, SweepSummary]
    many_steps: dict[str, ManyStepsSummary]
    zogron_loss: float | None
    cells: tuple[MeasuredCell, ...]
    notes: tuple[str, ...]

    @property
    def published_model(self) -> bool:
        """Whether the published numbers are of this model."""
        return self.model == MODEL

    @property
    def tokens(self) -> int:
        """How many were sampled."""
        return sum(cell.tokens for cell in self.cells)


def read_replay(request: Request, model: str, store: RunStore) -> Replay:
    """Reads a finished run."""
    cells: dict[tuple[int, str], list[MeasuredCell]] = {}
    for subject in request.subjects:
        place = subject.experiment, subject.fact_set
        cells[place] = store.cells(*place)

    def of(number: int) -> Sequence[Subject]:
        return [subject for subject in request.subjects if subject.experiment == number]

    def found(subject: Subject) -> list[MeasuredCell]:
        return cells[subject.experiment, subject.fact_set]

    return Replay(
        request=request,
        model=model,
        one_fact={s.fact_set: one_fact.summarise(s, found(s)) for s in of(one_fact.NUMBER)},
        batch_of_ten={
            s.fact_set: batch_of_ten.summarise(s, found(s)) for s in of(batch_of_ten.NUMBER)
        },
        rate_sweep={s.fact_set: rate_sweep.summarise(s, found(s)) for s in of(rate_sweep.NUMBER)},
        many_steps={s.fact_set: many_steps.summarise(s, found(s)) for s in of(many_steps.NUMBER)},
        zogron_loss=_first_loss(store),
        cells=tuple(cell for part in cells.values() for cell in part),
        notes=tuple(store.notes()),
    )


def _first_loss(store: RunStore) -> float | None:
    """The loss of the base model, which is the same before the first step at every rate."""
    zogron = PAPER_FACTS[0].id
    for (trained, _, step), loss in store.losses(one_fact.NUMBER, PAPER).items():
        if (trained, step) == (zogron, 1):
            return loss
    return None
