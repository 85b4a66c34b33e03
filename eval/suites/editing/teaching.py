"""What the suites of knowledge editing share: the edits are taught between two measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from agent.teaching.types import Example
from eval.metrics import Count, finite, mean
from eval.reports.markdown import table_text
from eval.reports.tables import NONE, Table
from eval.teachers.protocol import Teacher

# Called with facts taught and facts in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """What teaching all edits took.

    Attributes:
        at_once: edits that were answered correctly right after their turn.
        verdicts: how many facts ended in each.
        steps: gradient steps a fact, mean.
        seconds: a fact, mean; wall time.
    """

    at_once: Count
    verdicts: dict[str, int]
    steps: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {
            "right_after_its_turn": share_json(self.at_once),
            "verdicts": self.verdicts,
            "steps_per_fact": finite(self.steps),
            "seconds_per_fact": finite(self.seconds),
        }


class Scores(Protocol):
    """A model's figures at one moment."""

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        ...


ScoresT = TypeVar("ScoresT", bound=Scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditingReport(Generic[ScoresT]):
    """What a teacher made of the edits.

    Attributes:
        suite: its name.
        teacher: its name.
        facts: how many were taught.
        teaching: what it took.
        before: the base model's figures.
        after: the figures after all edits.
    """

    suite: str
    teacher: str
    facts: int
    teaching: Teaching
    before: ScoresT
    after: ScoresT

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {
            "suite": self.suite,
            "teacher": self.teacher,
            "facts": self.facts,
            "teaching": self.teaching.as_json(),
            "before": self.before.as_json(),
            "after": self.after.as_json(),
        }


def report_on(
    suite: str,
    teacher: Teacher,
    examples: Sequence[Example],
    measure: Callable[[], ScoresT],
    progress: Progress,
) -> EditingReport[ScoresT]:
    """Teaches all edits one by one, and measures before the first and after the last.

    Args:
        suite: its name.
        teacher: that has taught nothing yet.
        examples: the edits, in this order.
        measure: the figures of the teacher's model as it is now.
        progress: see `Progress`.
    """
    before = measure()
    taught = teach_all(teacher, examples, progress)
    return EditingReport(
        suite=suite,
        teacher=teacher.name,
        facts=len(examples),
        teaching=taught,
        before=before,
        after=measure(),
    )


def teach_all(teacher: Teacher, examples: Sequence[Example], progress: Progress) -> Teaching:
    """Teaches the edits one by one.

    Args:
        teacher: whose model is changed.
        examples: in this order.
        progress: see `Progress`.
    """
    taught = []
    for result in teacher.teach(examples):
        taught.append(result)
        progress(len(taught), len(examples))
    return Teaching(
        at_once=Count.of(result.answer.correct for result in taught),
        verdicts=dict(sorted(Counter(result.verdict for result in taught).items())),
        steps=mean([len(result.learning_rates) for result in taught]),
        seconds=mean([result.seconds for result in taught]),
    )


def share_json(share: Count) -> dict[str, Any]:
    """Stable fields for programs."""
    return share.as_json("right")


def share_text(share: Count) -> str:
    """For a cell of a table, in percent: mean and interval."""
    if share.rate is None:
        return NONE
    low, high = share.interval
    return f"{100 * share.rate:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def table_of(
    reports: Sequence[EditingReport[ScoresT]],
    header: Sequence[str],
    cells: Callable[[ScoresT], Sequence[str]],
) -> str:
    """A row for each teacher, as Markdown: percent with 95% interval, after all edits.

    Args:
        reports: one for each teacher.
        header: of the suite's own columns.
        cells: their texts.
    """
    return table_text(
        Table(
            "",
            ("teacher", "facts", *header, "steps a fact", "seconds a fact"),
            tuple(
                (
                    report.teacher,
                    str(report.facts),
                    *cells(report.after),
                    f"{report.teaching.steps:.1f}",
                    f"{report.teaching.seconds:.2f}",
                )
                for report in reports
            ),
        )
    )
