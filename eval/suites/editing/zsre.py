"""Suite `zsre`: edits that are questions, asked again in other words, beside unrelated ones.

Every figure stands twice. *Forced* is the field's: the share of the answer's tokens that the model
finds most probable after the right ones before them. *Generated* is what a user meets: the greedy
answer, which must end by itself and say the target. The first flatters (96.8% against 38.5% in
arXiv 2502.11177).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.teaching.prompts import normalise
from agent.teaching.types import Answer, Example
from eval.suites.editing.edit_files import ZsreRow
from eval.suites.editing.scoring import Forced, ScoringTeacher, force_answers
from eval.suites.editing.teaching import Share, Teaching, markdown_table, teach_all


@dataclass(frozen=True, slots=True)
class Score:
    """One figure, in both ways.

    Attributes:
        forced: mean over rows of the share of tokens.
        generated: rows.
    """

    forced: Share
    generated: Share

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {"forced": self.forced.as_json(), "generated": self.generated.as_json()}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ZsreReport:
    """What a teacher made of the edits, after all of them.

    Attributes:
        teacher: its name.
        facts: how many were taught.
        teaching: what it took.
        before: the base model; its locality is 1 by definition.
        after: the taught one.
    """

    teacher: str
    facts: int
    teaching: Teaching
    before: ZsreScores
    after: ZsreScores

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {
            "suite": "zsre",
            "teacher": self.teacher,
            "facts": self.facts,
            "teaching": self.teaching.as_json(),
            "before": self.before.as_json(),
            "after": self.after.as_json(),
        }


@dataclass(frozen=True, slots=True)
class _Asked:
    """Some questions' answers, in both ways."""

    answers: list[Answer]
    forced: list[Forced]

    @classmethod
    def of(cls, teacher: ScoringTeacher, pairs: Sequence[tuple[str, str]]) -> _Asked:
        return cls(teacher.probe(pairs), force_answers(teacher, pairs))

    def right(self) -> Score:
        return Score(
            forced=Share.of(forced.accuracy for forced in self.forced),
            generated=Share.of(answer.correct for answer in self.answers),
        )

    def same_as(self, base: _Asked) -> Score:
        forced = zip(self.forced, base.forced, strict=True)
        answers = zip(self.answers, base.answers, strict=True)
        return Score(
            forced=Share.of(now.agreement(then) for now, then in forced),
            generated=Share.of(
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
    def of(cls, teacher: ScoringTeacher, rows: Sequence[ZsreRow]) -> _Round:
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


def run_zsre(
    teacher: ScoringTeacher, rows: Sequence[ZsreRow], progress: Callable[[int, int], None]
) -> ZsreReport:
    """Teaches all rows one by one, and measures before the first and after the last.

    Args:
        teacher: that has taught nothing yet.
        rows: see `eval.suites.editing.edit_files.read_zsre`.
        progress: called with facts taught and facts in all.
    """
    base = _Round.of(teacher, rows)
    examples = [Example(fact_id=row.id, question=row.question, answer=row.target) for row in rows]
    teaching = teach_all(teacher, examples, progress)
    return ZsreReport(
        teacher=teacher.name,
        facts=len(rows),
        teaching=teaching,
        before=base.scores(base),
        after=_Round.of(teacher, rows).scores(base),
    )


def zsre_table(reports: Sequence[ZsreReport]) -> str:
    """A row for each teacher: percent with 95% interval, of as many facts as the second column."""
    return markdown_table(
        [
            "teacher",
            "facts",
            "reliability, generated",
            "forced",
            "generalization, generated",
            "forced",
            "locality, generated",
            "forced",
            "steps a fact",
            "seconds a fact",
        ],
        [
            [
                report.teacher,
                str(report.facts),
                *(
                    share.as_text()
                    for score in (
                        report.after.reliability,
                        report.after.generalization,
                        report.after.locality,
                    )
                    for share in (score.generated, score.forced)
                ),
                f"{report.teaching.steps:.1f}",
                f"{report.teaching.seconds:.2f}",
            ]
            for report in reports
        ],
    )
