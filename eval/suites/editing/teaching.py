"""What the suites of the knowledge-editing field share: teaching the edits, and their figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.teaching.types import Example
from eval.metrics import wilson_interval
from eval.teachers.protocol import Teacher


@dataclass(frozen=True, slots=True)
class Share:
    """A mean of numbers between 0 and 1: of right or wrong, or of shares themselves.

    Attributes:
        right: their sum; a count if each is 0 or 1.
        total: how many they are.
    """

    right: float
    total: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Share:
        """Adds them up."""
        listed = list(values)
        return cls(math.fsum(listed), len(listed))

    @property
    def rate(self) -> float:
        """The mean; NaN of none."""
        return self.right / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval. For a mean of shares it is wider than need be.

        No numbers between 0 and 1 vary more about their mean than zeros and ones do.
        """
        return wilson_interval(self.right, self.total)

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {
            "right": self.right,
            "total": self.total,
            "rate": finite(self.rate),
            "interval_95": list(self.interval),
        }

    def as_text(self) -> str:
        """For a cell of a table, in percent: mean and interval."""
        if not self.total:
            return "-"
        low, high = self.interval
        return f"{100 * self.rate:.1f} ({100 * low:.1f} to {100 * high:.1f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """What teaching all edits took.

    Attributes:
        at_once: edits that were answered rightly right after their turn.
        verdicts: how many facts ended in each.
        steps: gradient steps a fact, mean.
        seconds: a fact, mean; wall time.
    """

    at_once: Share
    verdicts: dict[str, int]
    steps: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {
            "right_after_its_turn": self.at_once.as_json(),
            "verdicts": self.verdicts,
            "steps_per_fact": finite(self.steps),
            "seconds_per_fact": finite(self.seconds),
        }


def teach_all(
    teacher: Teacher, examples: Sequence[Example], progress: Callable[[int, int], None]
) -> Teaching:
    """Teaches the edits one by one.

    Args:
        teacher: whose model is changed.
        examples: in this order.
        progress: called with facts done and facts in all.
    """
    taught = []
    for result in teacher.teach(examples):
        taught.append(result)
        progress(len(taught), len(examples))
    return Teaching(
        at_once=Share.of(result.answer.correct for result in taught),
        verdicts=dict(sorted(Counter(result.verdict for result in taught).items())),
        steps=mean([len(result.learning_rates) for result in taught]),
        seconds=mean([result.seconds for result in taught]),
    )


def mean(values: Sequence[float]) -> float:
    """NaN of none."""
    return math.fsum(values) / len(values) if values else math.nan


def finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for people, and for `docs/`."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
