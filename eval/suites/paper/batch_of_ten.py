"""Experiment 2, tables 1 and 2: one step on a batch of ten, before and after.

The trained questions and the correlated ones are each asked in rounds; in the scripts each round
has sampling parameters of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.suites.paper.facts import TaughtFact
from eval.suites.paper.measurements import Measurement, Pooled
from eval.suites.paper.protocol import Protocol
from eval.suites.paper.trials import ALL_FACTS, BASE_RATE, KINDS, Stop, Subject, Trial
from memory_store.vocabulary import ProbeKind

NUMBER = 2
TITLE = "a batch of ten, one step, trained and correlated questions"


def plan(subject: Subject, protocol: Protocol) -> Iterator[Trial]:
    """The base model, then one step."""
    numbers = protocol.batch_of_ten
    for trained, rate, step in (("", BASE_RATE, 0), (ALL_FACTS, numbers.learning_rate, 1)):
        calls = tuple(
            subject.call(
                *(trained, rate, step, numbers.samples, numbers.sampling),
                facts=subject.facts,
                kind=kind,
                round_=round_,
            )
            for kind in KINDS
            for round_ in range(numbers.rounds)
        )
        yield subject.trial(trained, rate, [Stop(step=step, calls=calls)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of table 1 or 2."""

    fact: TaughtFact
    kind: ProbeKind
    before: Pooled
    after: Pooled

    @property
    def question(self) -> str:
        """What was asked."""
        trained = self.kind == ProbeKind.RETENTION
        return self.fact.question if trained else self.fact.correlated


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSummary:
    """Experiment 2 with one set of facts.

    Attributes:
        trained: table 1.
        correlated: table 2.
    """

    trained: tuple[Row, ...]
    correlated: tuple[Row, ...]


def summarize(subject: Subject, cells: Sequence[Measurement]) -> BatchSummary:
    """Adds up the rounds of a finished experiment."""

    def pooled(fact: TaughtFact, kind: ProbeKind, step: int) -> Pooled:
        wanted = (fact.id, kind, step)
        return Pooled.of([c for c in cells if (c.key.fact_id, c.key.kind, c.key.step) == wanted])

    def table(kind: ProbeKind) -> tuple[Row, ...]:
        return tuple(
            Row(fact=fact, kind=kind, before=pooled(fact, kind, 0), after=pooled(fact, kind, 1))
            for fact in subject.facts
        )

    return BatchSummary(trained=table(ProbeKind.RETENTION), correlated=table(ProbeKind.TRANSFER))
