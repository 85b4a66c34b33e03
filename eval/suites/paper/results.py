"""The results of the suite `paper` as JSON with stable fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eval.metrics import Count
from eval.suites.paper import reference
from eval.suites.paper.batch_of_ten import Row
from eval.suites.paper.facts import PAPER, PAPER_FACTS
from eval.suites.paper.findings import findings, verdict
from eval.suites.paper.measurements import Measurement, Pooled
from eval.suites.paper.protocol import PROTOCOLS
from eval.suites.paper.summary import RunSummary
from eval.suites.paper.trials import CellKey

# How answers are sampled and graded; part of every result.
SAMPLING = (
    "sampled after the bare question; right if the answer occurs anywhere in the text, case aside;"
    " intervals are Wilson's at 95%"
)
_CELL = (*CellKey._fields, "correct", "samples", "log_probability", "estimate", "estimate_error")


def results_json(run: RunSummary, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Everything except the sampled texts, which only the SQLite file has.

    Apart from `provenance` it is always the same, however often the run was interrupted.
    """
    request = run.request
    return {
        **summary_json(run),
        "protocol": {
            "full": PROTOCOLS[request.protocol].as_json(),
            "used": request.numbers.as_json(),
        },
        "experiments": {
            "1": {name: _one_fact(run, name) for name in run.one_fact},
            "2": {name: _batch(run, name) for name in run.batch_of_ten},
            "3": {name: _sweep(run, name) for name in run.rate_sweep},
            "4": {name: _many_steps(run, name) for name in run.many_steps},
        },
        "cells": {"columns": list(_CELL), "rows": [_cell(cell) for cell in run.cells]},
        "provenance": dict(provenance),
    }


def summary_json(run: RunSummary) -> dict[str, Any]:
    """The summary for programs: counts by name, and sentences."""
    return {
        "suite": "paper",
        "settings": run.request.as_json(),
        "model": run.model,
        "scale": run.request.scale_text,
        "sampling": SAMPLING,
        "tokens_sampled": run.tokens,
        "notes": list(run.notes),
        "findings": {str(number): sentences for number, sentences in findings(run).items()},
        "counts": {name: count.as_json() for name, count in named_counts(run)},
    }


def named_counts(run: RunSummary) -> Iterator[tuple[str, Count]]:
    """The counts that runs are compared by; their names do not depend on the run."""
    for name, one in run.one_fact.items():
        for curve in one.curves:
            yield f"1 {name}: {curve.fact.id} at its best rate", curve.results[curve.best].count
        if one.overlap.learned:
            yield f"1 {name}: all at the common rate", one.overlap.common
    for name, batch in run.batch_of_ten.items():
        for row in (*batch.trained, *batch.correlated):
            yield f"2 {name}: {row.fact.id} {row.kind.value} before", row.before.count
            yield f"2 {name}: {row.fact.id} {row.kind.value} after", row.after.count
    for name, sweep in run.rate_sweep.items():
        for step in range(len(sweep.noise)):
            count = sweep.courses[sweep.best(step)].over_facts(step).count
            yield f"3 {name}: all ten after step {step + 1} at its best rate", count
    for name, many in run.many_steps.items():
        for course in many.courses:
            for fact_number, fact in enumerate(many.facts):
                count = course.over_steps(fact_number).count
                yield f"4 {name}: {fact.id} at {course.learning_rate:g}, all steps", count


def _pooled(result: Pooled) -> dict[str, Any]:
    interval = result.estimate_interval
    return {
        **result.count.as_json(),
        "probability": result.probability,
        "estimate": result.estimate,
        "estimate_interval_95": list(interval) if interval else None,
        "estimate_gain": result.gain,
    }


def _one_fact(run: RunSummary, name: str) -> dict[str, Any]:
    summary = run.one_fact[name]
    overlap = summary.overlap
    return {
        "curves": [
            {
                "fact_id": curve.fact.id,
                "question": curve.fact.question,
                "answer": curve.fact.answer,
                "base": _pooled(curve.base),
                "best_rate": curve.rates[curve.best] if curve.learned else None,
                "best": _pooled(curve.results[curve.best]),
                "good_rates": [curve.rates[number] for number in sorted(curve.good)],
                "points": [
                    {"learning_rate": rate, **_pooled(found)}
                    for rate, found in zip(curve.rates, curve.results, strict=True)
                ],
            }
            for curve in summary.curves
        ],
        "overlap": {
            "learned": overlap.learned,
            "best_rate_ratio": overlap.ratio,
            "mean_shared_good_rates": overlap.pairs,
            "pairs_without_shared_rate": overlap.apart,
            "pairs": overlap.pair_count,
            "common_rate": overlap.common_rate,
            "good_at_common_rate": overlap.good_at_common,
            "own_rates": overlap.own.as_json(),
            "at_common_rate": overlap.common.as_json(),
            "loss_interval_95": list(overlap.loss_interval),
        },
        "loss_before": run.zogron_loss if name == PAPER else None,
        "published": {
            "model": reference.MODEL,
            "fact_id": PAPER_FACTS[0].id,
            "samples": reference.FIGURE_1_SAMPLES,
            "loss_before": reference.ZOGRON_LOSS,
            "points": [
                {"learning_rate": p.learning_rate, "correct": p.correct, "within": p.within}
                for p in reference.FIGURE_1
            ],
        }
        if name == PAPER
        else None,
    }


def _batch(run: RunSummary, name: str) -> dict[str, Any]:
    summary = run.batch_of_ten[name]
    tables = {"table_1": summary.trained, "table_2": summary.correlated}
    theirs = {"table_1": reference.TABLE_1, "table_2": reference.TABLE_2}
    return {
        table: [
            {
                "fact_id": row.fact.id,
                "question": row.question,
                "answer": row.fact.answer,
                "before": _pooled(row.before),
                "after": _pooled(row.after),
                "published": _published(row, theirs[table][n]) if name == PAPER else None,
            }
            for n, row in enumerate(rows)
        ]
        for table, rows in tables.items()
    }


def _published(row: Row, theirs: reference.BeforeAfter) -> dict[str, Any]:
    beside: dict[str, Any] = {"model": reference.MODEL}
    for total in (reference.AS_PRINTED, reference.AS_CODED):
        before, after = theirs.counts(total)
        beside[f"of_{total}"] = {
            "before": before.as_json(),
            "after": after.as_json(),
            "ours_before": verdict(row.before.count, before),
            "ours_after": verdict(row.after.count, after),
        }
    return beside


def _sweep(run: RunSummary, name: str) -> dict[str, Any]:
    summary = run.rate_sweep[name]
    return {
        "base": {f.id: _pooled(b) for f, b in zip(summary.facts, summary.base, strict=True)},
        "noise": list(summary.noise),
        "best": [
            {
                "step": step + 1,
                "learning_rate": best.learning_rate,
                **_pooled(best.over_facts(step)),
            }
            for step in range(len(summary.noise))
            for best in [summary.courses[summary.best(step)]]
        ],
        "average_over_steps": [
            {
                "learning_rate": course.learning_rate,
                **{
                    fact.id: course.over_steps(number).count.as_json()
                    for number, fact in enumerate(summary.facts)
                },
            }
            for course in summary.courses
        ],
    }


def _many_steps(run: RunSummary, name: str) -> dict[str, Any]:
    summary = run.many_steps[name]
    return {
        "base": {f.id: _pooled(b) for f, b in zip(summary.facts, summary.base, strict=True)},
        "courses": [
            {
                "learning_rate": course.learning_rate,
                "steps": list(course.steps),
                "facts": {
                    fact.id: [found[number].count.count for found in course.results]
                    for number, fact in enumerate(summary.facts)
                },
                "samples": course.results[0][0].count.total,
            }
            for course in summary.courses
        ],
    }


def _cell(cell: Measurement) -> list[Any]:
    values = {**cell.key._asdict(), "kind": cell.key.kind.value}
    return [values[name] if name in values else getattr(cell, name) for name in _CELL]
