"""The results of the suite `paper` as JSON: stable fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eval.metrics import Count
from eval.suites.paper import reference
from eval.suites.paper.batch_of_ten import Row
from eval.suites.paper.facts import PAPER, PAPER_FACTS
from eval.suites.paper.findings import findings, published_row, verdict
from eval.suites.paper.measurements import Found, MeasuredCell
from eval.suites.paper.protocol import PROTOCOLS
from eval.suites.paper.summary import Replay
from eval.suites.paper.trials import CellKey

# How answers are sampled and graded, told with every result.
SAMPLING = (
    "sampled after the bare question; right if the answer occurs anywhere in the text, case aside;"
    " intervals are Wilson's at 95%"
)
_CELL = (*CellKey._fields, "correct", "samples", "log_probability", "estimate", "estimate_error")


def results_json(replay: Replay, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but sampled texts, which only the SQLite file has.

    All of it but `provenance` is the same whenever and however often interrupted the run was.
    """
    request = replay.request
    return {
        **summary_json(replay),
        "protocol": {
            "full": PROTOCOLS[request.protocol].as_json(),
            "used": request.numbers.as_json(),
        },
        "experiments": {
            "1": {name: _one_fact(replay, name) for name in replay.one_fact},
            "2": {name: _batch(replay, name) for name in replay.batch_of_ten},
            "3": {name: _sweep(replay, name) for name in replay.rate_sweep},
            "4": {name: _many_steps(replay, name) for name in replay.many_steps},
        },
        "cells": {"columns": list(_CELL), "rows": [_cell(cell) for cell in replay.cells]},
        "provenance": dict(provenance),
    }


def summary_json(replay: Replay) -> dict[str, Any]:
    """What a program wants to know: counts by name, and sentences."""
    return {
        "suite": "paper",
        "settings": replay.request.as_json(),
        "model": replay.model,
        "scale": replay.request.scale_told,
        "sampling": SAMPLING,
        "tokens_sampled": replay.tokens,
        "notes": list(replay.notes),
        "findings": {str(number): told for number, told in findings(replay).items()},
        "counts": {name: count.as_json() for name, count in named_counts(replay)},
    }


def named_counts(replay: Replay) -> Iterator[tuple[str, Count]]:
    """The counts that two runs are compared by, under names that do not depend on the run."""
    for name, one in replay.one_fact.items():
        for curve in one.curves:
            yield f"1 {name}: {curve.fact.id} at its best rate", curve.found[curve.best].count
        if one.overlap.learned:
            yield f"1 {name}: all at the common rate", one.overlap.common
    for name, batch in replay.batch_of_ten.items():
        for row in (*batch.trained, *batch.correlated):
            yield f"2 {name}: {row.fact.id} {row.kind.value} before", row.before.count
            yield f"2 {name}: {row.fact.id} {row.kind.value} after", row.after.count
    for name, sweep in replay.rate_sweep.items():
        for step in range(len(sweep.found)):
            count = sweep.over_facts(step, sweep.best(step)).count
            yield f"3 {name}: all ten after step {step + 1} at its best rate", count
    for name, many in replay.many_steps.items():
        for course in many.courses:
            for fact_number, fact in enumerate(many.facts):
                count = course.over_steps(fact_number).count
                yield f"4 {name}: {fact.id} at {course.learning_rate:g}, all steps", count


def _found(found: Found) -> dict[str, Any]:
    interval = found.estimate_interval
    return {
        **found.count.as_json(),
        "probability": found.probability,
        "estimate": found.estimate,
        "estimate_interval_95": list(interval) if interval else None,
        "estimate_gain": found.gain,
    }


def _one_fact(replay: Replay, name: str) -> dict[str, Any]:
    summary = replay.one_fact[name]
    overlap = summary.overlap
    return {
        "curves": [
            {
                "fact_id": curve.fact.id,
                "question": curve.fact.question,
                "answer": curve.fact.answer,
                "base": _found(curve.base),
                "best_rate": curve.rates[curve.best] if curve.learned else None,
                "best": _found(curve.found[curve.best]),
                "good_rates": [curve.rates[number] for number in sorted(curve.good)],
                "points": [
                    {"learning_rate": rate, **_found(found)}
                    for rate, found in zip(curve.rates, curve.found, strict=True)
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
        "loss_before": replay.zogron_loss if name == PAPER else None,
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


def _batch(replay: Replay, name: str) -> dict[str, Any]:
    summary = replay.batch_of_ten[name]
    tables = {"table_1": summary.trained, "table_2": summary.correlated}
    theirs = {"table_1": reference.TABLE_1, "table_2": reference.TABLE_2}
    return {
        table: [
            {
                "fact_id": row.fact.id,
                "question": row.question,
                "answer": row.fact.answer,
                "before": _found(row.before),
                "after": _found(row.after),
                "published": _published(row, theirs[table][n]) if name == PAPER else None,
            }
            for n, row in enumerate(rows)
        ]
        for table, rows in tables.items()
    }


def _published(row: Row, theirs: reference.BeforeAfter) -> dict[str, Any]:
    told: dict[str, Any] = {"model": reference.MODEL}
    for total in (reference.AS_PRINTED, reference.AS_CODED):
        before, after = published_row(theirs, total)
        told[f"of_{total}"] = {
            "before": before.as_json(),
            "after": after.as_json(),
            "ours_before": verdict(row.before.count, before),
            "ours_after": verdict(row.after.count, after),
        }
    return told


def _sweep(replay: Replay, name: str) -> dict[str, Any]:
    summary = replay.rate_sweep[name]
    steps = range(len(summary.found))
    return {
        "base": {f.id: _found(b) for f, b in zip(summary.facts, summary.base, strict=True)},
        "noise": list(summary.noise),
        "best": [
            {
                "step": step + 1,
                "learning_rate": summary.rates[summary.best(step)],
                **_found(summary.over_facts(step, summary.best(step))),
            }
            for step in steps
        ],
        "average_over_steps": [
            {
                "learning_rate": rate,
                **{
                    fact.id: summary.average(number, fact_number).count.as_json()
                    for fact_number, fact in enumerate(summary.facts)
                },
            }
            for number, rate in enumerate(summary.rates)
        ],
    }


def _many_steps(replay: Replay, name: str) -> dict[str, Any]:
    summary = replay.many_steps[name]
    return {
        "base": {f.id: _found(b) for f, b in zip(summary.facts, summary.base, strict=True)},
        "courses": [
            {
                "learning_rate": course.learning_rate,
                "steps": list(course.steps),
                "facts": {
                    fact.id: [found[number].count.count for found in course.found]
                    for number, fact in enumerate(summary.facts)
                },
                "samples": course.found[0][0].count.total,
            }
            for course in summary.courses
        ],
    }


def _cell(cell: MeasuredCell) -> list[Any]:
    values = {**cell.key._asdict(), "kind": cell.key.kind.value}
    return [values[name] if name in values else getattr(cell, name) for name in _CELL]
