"""Suite `zsre`: edits that are questions, asked again in other words, and unrelated questions.

Every figure is reported in two ways. *Forced* is the field's: the share of the answer's tokens that
the model finds most probable after the right ones before them. *Generated* is what a user sees: the
greedy answer, which must end by itself and say the target. The first flatters (96.8% against 38.5%
in arXiv 2502.11177).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.teaching.prompts import normalise
from agent.teaching.types import Answer, Example
from eval.metrics import Count
from eval.suites.editing.edit_files import ZsreRow
from eval.suites.editing.scoring import Forced, force_answers
from eval.suites.editing.teaching import (
    EditingReport,
    Progress,
    report_on,
    share_json,
    share_text,
    table_of,
)
from eval.teachers.protocol import Teacher


@dataclass(frozen=True, slots=True)
class Score:
    """One figure, in both ways.

    Attributes:
        forced: mean over rows of the share of tokens.
        generated: rows.
    """

    forced: Count
    generated: Count

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {"forced": share_json(self.forced), "generated": share_json(self.generated)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ZsreScores:
    """A model's figures at one moment.

    Attributes:
        reliability: the taught questions.
        generalization: the same in other words.
        locality: unrelated questions whose answer is what it was before teaching, right or wrong.
    """

    reliability: Score
    generalization: Score
    locality: Score

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {
            "reliability": self.reliability.as_json(),
            "generalization": self.generalization.as_json(),
            "locality": self.locality.as_json(),
        }


ZsreReport = EditingReport[ZsreScores]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Some questions' answers, in both ways."""

    answers: list[Answer]
    forced: list[Forced]

    @classmethod
    def of(cls, teacher: Teacher, pairs: Sequence[tuple[str, str]]) -> _Asked:
        return cls(teacher.probe(pairs), force_answers(teacher, pairs))

    def right(self) -> Score:
        return Score(
            forced=Count.of(forced.accuracy for forced in self.forced),
            generated=Count.of(answer.correct for answer in self.answers),
        )

    def same_as(self, base: _Asked) -> Score:
        forced = zip(self.forced, base.forced, strict=True)
        answers = zip(self.answers, base.answers, strict=True)
        return Score(
            forced=Count.of(now.agreement(then) for now, then in forced),
            generated=Count.of(
                normalise(now.text) == normalise(then.text) for now, then in answers
            ),
        )


@dataclass(frozen=True, slots=True)
class _Round:
    """All rows' questions, asked at one moment."""

    taught: _Asked
    rephrased: _Asked
    unrelated: _Asked

    @classmethod
    def of(cls, teacher: Teacher, rows: Sequence[ZsreRow]) -> _Round:
        return cls(
            taught=_Asked.of(teacher, [(row.question, row.target) for row in rows]),
            rephrased=_Asked.of(teacher, [(row.rephrase, row.target) for row in rows]),
            unrelated=_Asked.of(
                teacher, [(row.locality_question, row.locality_answer) for row in rows]
            ),
        )

    def scores(self, base: _Round) -> ZsreScores:
        return ZsreScores(
            reliability=self.taught.right(),
            generalization=self.rephrased.right(),
            locality=self.unrelated.same_as(base.unrelated),
        )


def run_zsre(teacher: Teacher, rows: Sequence[ZsreRow], progress: Progress) -> ZsreReport:
    """Teaches all rows one by one, and measures before the first and after the last.

    Args:
        teacher: that has taught nothing yet.
        rows: see `eval.suites.editing.edit_files.read_zsre`.
        progress: see `Progress`.
    """
    rounds: list[_Round] = []

    def measure() -> ZsreScores:
        rounds.append(_Round.of(teacher, rows))
        return rounds[-1].scores(rounds[0])

    examples = [Example(fact_id=row.id, question=row.question, answer=row.target) for row in rows]
    return report_on("zsre", teacher, examples, measure, progress)


def zsre_table(reports: Sequence[ZsreReport]) -> str:
    """A row for each teacher; see `table_of`."""
    names = ("reliability", "generalization", "locality")
    header = [column for name in names for column in (f"{name}, generated", "forced")]
    return table_of(reports, header, _cells)


def _cells(after: ZsreScores) -> list[str]:
    scores = (after.reliability, after.generalization, after.locality)
    return [share_text(share) for score in scores for share in (score.generated, score.forced)]
