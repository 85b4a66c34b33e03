"""Suite `counterfact`: false facts, measured by which of two targets the model prefers.

The question is taught; the sentences that are measured are not. Each is scored with a space and a
target after it. Success and magnitude are those of Meng et al. 2022: ES on the row's own
prompt, PS on paraphrases, NS on neighbors (where the *true* target should stay preferred), S
the harmonic mean of the three. The paper compares the targets' probabilities, its code the mean
logarithm of a token's probability, which does not favor short targets: both are reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.teaching.types import Example
from eval.metrics import Count, finite, mean
from eval.suites.editing.edit_files import CounterFactRow
from eval.suites.editing.scoring import Completion, score_completions
from eval.suites.editing.teaching import (
    EditingReport,
    Progress,
    report_on,
    share_json,
    share_text,
    table_of,
)
from eval.teachers.protocol import Teacher

# How a target is rated, by the name of the measure: a logarithm.
MEASURES: dict[str, Callable[[Completion], float]] = {
    "whole_target": lambda completion: completion.log_probability,
    "per_token": lambda completion: completion.per_token,
}


@dataclass(frozen=True, slots=True)
class Success:
    """How often the right one of two targets is preferred, and by how much.

    Attributes:
        share: mean over rows of the share of a row's prompts.
        prompts: how many there are in all.
        magnitude: mean difference of the probabilities, right one first, -1 to 1.
    """

    share: Count
    prompts: int
    magnitude: float

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {
            **share_json(self.share),
            "prompts": self.prompts,
            "magnitude": finite(self.magnitude),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """By one measure: ES, PS and NS.

    Attributes:
        efficacy: the row's own prompt ends with the new target.
        paraphrase: so do the paraphrases.
        neighborhood: the neighbors still end with the true one.
    """

    efficacy: Success
    paraphrase: Success
    neighborhood: Success

    @property
    def score(self) -> float:
        """S, the harmonic mean, 0 to 1; NaN without rows."""
        rates = [s.share.rate for s in (self.efficacy, self.paraphrase, self.neighborhood)]
        if None in rates:
            return math.nan
        return len(rates) / math.fsum(1 / rate for rate in rates if rate) if all(rates) else 0.0

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {
            "ES": self.efficacy.as_json(),
            "PS": self.paraphrase.as_json(),
            "NS": self.neighborhood.as_json(),
            "S": finite(self.score),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterFactScores:
    """A model's figures at one moment.

    Attributes:
        preferences: by measure.
        answered: the question is answered with the new target, freely and greedily.
        completed: so is the row's own prompt; more text may follow the target.
    """

    preferences: dict[str, Preferences]
    answered: Count
    completed: Count

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {
            **{name: preferences.as_json() for name, preferences in self.preferences.items()},
            "generated": {
                "question": share_json(self.answered),
                "prompt": share_json(self.completed),
            },
        }


CounterFactReport = EditingReport[CounterFactScores]


def run_counterfact(
    teacher: Teacher, rows: Sequence[CounterFactRow], progress: Progress
) -> CounterFactReport:
    """Teaches all rows one by one, and measures before the first and after the last.

    Args:
        teacher: that has taught nothing yet.
        rows: see `eval.suites.editing.edit_files.read_counterfact`.
        progress: see `Progress`.
    """
    examples = [
        Example(fact_id=row.id, question=row.question, answer=row.target_new) for row in rows
    ]
    return report_on("counterfact", teacher, examples, lambda: _scores(teacher, rows), progress)


@dataclass(frozen=True, slots=True)
class _Pair:
    """One prompt with either target; `right` is the one that is to be preferred."""

    right: Completion
    wrong: Completion


def _scores(teacher: Teacher, rows: Sequence[CounterFactRow]) -> CounterFactScores:
    # Of each row: one list of pairs for each of ES, PS and NS.
    new_first = [(row.target_new, row.target_true) for row in rows]
    true_first = [(row.target_true, row.target_new) for row in rows]
    own = _pairs(teacher, [(row.prompt,) for row in rows], new_first)
    paraphrases = _pairs(teacher, [row.paraphrases for row in rows], new_first)
    neighbors = _pairs(teacher, [row.neighbors for row in rows], true_first)
    answers = teacher.probe([(row.question, row.target_new) for row in rows])
    return CounterFactScores(
        preferences={
            name: Preferences(
                efficacy=_success(own, measure),
                paraphrase=_success(paraphrases, measure),
                neighborhood=_success(neighbors, measure),
            )
            for name, measure in MEASURES.items()
        },
        answered=Count.of(answer.correct for answer in answers),
        completed=Count.of(pair.right.greedy for (pair,) in own),
    )


def _pairs(
    teacher: Teacher,
    prompts: Sequence[Sequence[str]],
    targets: Sequence[tuple[str, str]],
) -> list[list[_Pair]]:
    """The prompts of each row, with the row's two targets."""
    texts = [
        (prompt, target)
        for row, both in zip(prompts, targets, strict=True)
        for prompt in row
        for target in both
    ]
    scored = iter(score_completions(teacher, texts))
    return [[_Pair(next(scored), next(scored)) for _ in row] for row in prompts]


def _success(rows: Sequence[Sequence[_Pair]], measure: Callable[[Completion], float]) -> Success:
    rated = [[(measure(pair.right), measure(pair.wrong)) for pair in row] for row in rows]
    differences = [math.exp(right) - math.exp(wrong) for row in rated for right, wrong in row]
    return Success(
        share=Count.of(mean([right > wrong for right, wrong in row]) for row in rated),
        prompts=len(differences),
        magnitude=mean(differences),
    )


def counterfact_table(reports: Sequence[CounterFactReport], measure: str = "whole_target") -> str:
    """A row for each teacher; see `table_of`.

    Args:
        reports: one for each teacher.
        measure: one of `MEASURES`.
    """
    names = ("ES", "PS", "NS")
    header = [column for name in names for column in (name, f"{name} magnitude")]
    header += ["S", "question answered", "prompt completed"]
    return table_of(reports, header, lambda after: _cells(after, after.preferences[measure]))


def _cells(after: CounterFactScores, by: Preferences) -> list[str]:
    successes = (by.efficacy, by.paraphrase, by.neighborhood)
    return [
        *(
            cell
            for success in successes
            for cell in (share_text(success.share), f"{100 * success.magnitude:.1f}")
        ),
        f"{100 * by.score:.1f}",
        share_text(after.answered),
        share_text(after.completed),
    ]
