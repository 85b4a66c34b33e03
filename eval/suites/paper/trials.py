"""The plan of an experiment: trainings from the base model, and questions.

A *trial* starts from the base model, takes some steps, and asks questions after some of them. The
questions at one place are divided into *calls* of the sampler, as in the scripts; a *cell* is one
question in one call, asked many times. A cell depends only on its trial and its key, so that an
interrupted run gives the same results when it goes on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from eval.suites.paper.facts import TaughtFact
from eval.suites.paper.protocol import Drawn, Fixed, Varied
from memory_store.vocabulary import ProbeKind

BASE_RATE = 0.0  # of the base model, which takes no step
ALL_FACTS = "all"  # what is trained, in place of a fact's id
KINDS = (ProbeKind.RETENTION, ProbeKind.TRANSFER)


class CellKey(NamedTuple):
    """The name of a cell within a run.

    Attributes:
        experiment: 1 to 4.
        fact_set: `paper` or `held-out`.
        trained: id of the fact that was trained, `all`, or empty for the base model.
        learning_rate: of each step; `BASE_RATE` for the base model.
        step: how many were taken.
        kind: of the question.
        fact_id: what the question is about.
        round: number of the call, where the same is asked in several.
    """

    experiment: int
    fact_set: str
    trained: str
    learning_rate: float
    step: int
    kind: ProbeKind
    fact_id: str
    round: int = 0

    def name(self, seed: int) -> str:
        """The seed of this cell's random numbers, in a run of this seed."""
        return "/".join(map(str, (seed, *self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One question, asked many times in one call of the sampler."""

    key: CellKey
    question: str
    answer: str
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Questions that are sampled side by side, with the same parameters."""

    cells: tuple[Cell, ...]
    sampling: Fixed | Drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A place in a trial where questions are asked."""

    step: int
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A training from the base model; without steps, the base model itself.

    Attributes:
        experiment: 1 to 4.
        fact_set: `paper` or `held-out`.
        trained: id of the fact that is trained, `all`, or empty.
        pairs: what is trained, as one batch: (question, answer).
        learning_rate: of each step.
        stops: by step, ascending.
    """

    experiment: int
    fact_set: str
    trained: str
    pairs: tuple[tuple[str, str], ...]
    learning_rate: float
    stops: tuple[Stop, ...]

    @property
    def calls(self) -> Iterator[Call]:
        """All of them, in order."""
        return (call for stop in self.stops for call in stop.calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An experiment with one set of facts.

    Attributes:
        experiment: 1 to 4.
        fact_set: `paper` or `held-out`.
        facts: the ten.
        seed: of the run.
    """

    experiment: int
    fact_set: str
    facts: tuple[TaughtFact, ...]
    seed: int

    def trial(self, trained: str, learning_rate: float, stops: Sequence[Stop]) -> Trial:
        """A trial of this experiment; for the arguments see `Trial`."""
        pairs = ((f.question, f.answer) for f in self.facts if trained in (f.id, ALL_FACTS))
        return Trial(
            experiment=self.experiment,
            fact_set=self.fact_set,
            trained=trained,
            pairs=tuple(pairs),
            learning_rate=learning_rate,
            stops=tuple(stops),
        )

    def call(
        self,
        trained: str,
        learning_rate: float,
        step: int,
        samples: int,
        sampling: Fixed | Varied,
        *,
        facts: Sequence[TaughtFact],
        kind: ProbeKind = ProbeKind.RETENTION,
        round_: int = 0,
    ) -> Call:
        """One question of a kind about each of these facts."""
        cells = tuple(
            Cell(
                key=CellKey(
                    experiment=self.experiment,
                    fact_set=self.fact_set,
                    trained=trained,
                    learning_rate=learning_rate,
                    step=step,
                    kind=kind,
                    fact_id=fact.id,
                    round=round_,
                ),
                question=fact.question if kind == ProbeKind.RETENTION else fact.correlated,
                answer=fact.answer,
                samples=samples,
            )
            for fact in facts
        )
        if isinstance(sampling, Varied):
            place = (self.experiment, self.fact_set, learning_rate, step, kind, round_)
            stream = random.Random("/".join(map(str, (self.seed, *place))))
            return Call(cells=cells, sampling=sampling.draw(stream))
        return Call(cells=cells, sampling=sampling)
