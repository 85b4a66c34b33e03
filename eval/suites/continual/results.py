"""The results of the suite `continual` as JSON: stable fields, in short and in full."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from eval.metrics import finite
from eval.suites.continual.run import Task
from eval.suites.continual.summary import Checkpoint, GeneralChange, Summary

# How answers are generated and graded; a part of every result.
SAMPLING = (
    "greedy, one answer a question; right if it ends by itself and says the answer;"
    " intervals are Wilson's at 95%"
)


def short_json(settings: Mapping[str, Any], summaries: Sequence[Summary]) -> dict[str, Any]:
    """For programs: the first teacher's numbers, then each teacher's under its name."""
    teachers = {summary.name: _numbers(summary) for summary in summaries}
    return {
        "suite": "continual",
        "sampling": SAMPLING,
        "settings": dict(settings),
        "teacher": summaries[0].name,
        **teachers[summaries[0].name],
        "teachers": teachers,
    }


def full_json(
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    task: Task,
    summaries: Sequence[Summary],
) -> dict[str, Any]:
    """The whole result: provenance, each fact, each control question, the matrix R."""
    return {
        "suite": "continual",
        "sampling": SAMPLING,
        "provenance": dict(provenance),
        "settings": dict(settings),
        "teachers": {
            summary.name: {
                **_numbers(summary),
                "matrix_R": matrix(summary),
                "facts": _facts(task, summary),
                "controls": _controls(task, summary),
            }
            for summary in summaries
        },
    }


def matrix(summary: Summary) -> dict[str, Any]:
    """R[i, j]: one row for each measurement, one column for each fact taught before; 0 and 1.

    `probability` has the same shape and is that of the exact answer; `own_turn` is R[i, i].
    """
    measured = [m for m in summary.history.measurements if m.taught]
    return {
        "taught": [m.taught for m in measured],
        "correct": [[int(answer.correct) for answer in m.retention] for m in measured],
        "probability": [
            [finite(math.exp(answer.log_probability)) for answer in m.retention] for m in measured
        ],
        "own_turn": [int(taught.answer.correct) for taught in summary.history.taught],
    }


def _numbers(summary: Summary) -> dict[str, Any]:
    last = summary.last
    change = _change(last.change)
    return {
        **{name: count.rate for name, count in last.counts.items()},
        "ppl_change": change["wikitext_ppl_change"],
        **change,
        "acc": summary.accuracy.rate,
        "bwt": summary.backward_transfer,
        "steps_per_fact": summary.steps.mean,
        "seconds_per_fact": summary.seconds.mean,
        "candidates_per_fact": summary.candidates.mean,
        "counts": {
            **_counts(last),
            "own_turn": summary.own_turn.as_json(),
            "lost": summary.lost.as_json(),
            "gained": summary.gained.as_json(),
        },
        "checkpoints": [
            {
                "taught": point.taught,
                **_counts(point),
                "general": point.general.as_json() if point.general else None,
                **_change(point.change),
                "seconds": point.seconds,
            }
            for point in summary.checkpoints
        ],
        "retention_by_age": [
            {"youngest": age.youngest, "oldest": age.oldest, **age.recall.as_json()}
            for age in summary.ages
        ],
        "sees_all": summary.history.sees_all,
        "steps": asdict(summary.steps),
        "seconds": asdict(summary.seconds),
        "candidates": asdict(summary.candidates),
        "learning_rates": {
            **asdict(summary.rates),
            "counts": [
                {"learning_rate": rate, "steps": n} for rate, n in summary.rate_counts.items()
            ],
        },
        "verdicts": summary.verdicts,
        "retaught": summary.retaught,
    }


def _counts(point: Checkpoint) -> dict[str, Any]:
    return {name: count.as_json() for name, count in point.counts.items()}


def _change(change: GeneralChange | None) -> dict[str, float | None]:
    """Relative changes of perplexities, a difference for the accuracy; None where unknown."""
    return {
        "wikitext_ppl_change": finite(change.wikitext) if change else None,
        "mixed_ppl_change": finite(change.mixed) if change else None,
        "lambada_ppl_change": finite(change.lambada) if change else None,
        "lambada_accuracy_change": change.lambada_accuracy if change else None,
    }


def _facts(task: Task, summary: Summary) -> list[dict[str, Any]]:
    last = summary.history.measurements[-1]
    return [
        {
            "id": fact.id,
            "form": fact.form,
            "kind": fact.kind,
            "question": fact.question,
            "answer": fact.answer,
            "verdict": taught.verdict,
            "learning_rates": list(taught.learning_rates),
            "seconds": taught.seconds,
            "candidates": taught.candidates,
            "retaught": list(taught.retaught),
            "own_turn": taught.answer.text,
            "own_turn_correct": taught.answer.correct,
            "final": final.text,
            "final_correct": final.correct,
            "paraphrases": [
                {"question": question, "answer": answer.text, "correct": answer.correct}
                for question, answer in zip(fact.paraphrases, paraphrases, strict=True)
            ],
            "transfer": {
                "question": fact.correlated,
                "answer": transfer.text,
                "correct": transfer.correct,
            },
        }
        for fact, taught, final, paraphrases, transfer in zip(
            task.facts,
            summary.history.taught,
            last.retention,
            zip(last.paraphrase[::2], last.paraphrase[1::2], strict=True),
            last.transfer,
            strict=True,
        )
    ]


def _controls(task: Task, summary: Summary) -> list[dict[str, str]]:
    base, last = summary.history.measurements[0], summary.history.measurements[-1]
    return [
        {"question": question, "base": before, "final": after}
        for question, before, after in zip(task.controls, base.controls, last.controls, strict=True)
    ]
