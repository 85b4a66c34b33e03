"""Tables 1 and 2 of the paper with ours, and a table of each other experiment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval.metrics import Count
from eval.reports.tables import (
    NONE,
    Table,
    shown_fraction,
    shown_number,
    shown_percent,
    shown_range,
)
from eval.suites.paper import reference
from eval.suites.paper.batch_of_ten import BatchSummary, Row
from eval.suites.paper.courses import CoursesSummary
from eval.suites.paper.facts import PAPER
from eval.suites.paper.findings import verdict
from eval.suites.paper.measurements import Pooled
from eval.suites.paper.one_fact import OneFactSummary
from eval.suites.paper.rate_sweep import SweepSummary
from eval.suites.paper.results import named_counts
from eval.suites.paper.summary import RunSummary


def tables(run: RunSummary, experiment: int, fact_set: str) -> Iterator[Table]:
    """The tables of one experiment with one set of facts."""
    label = f"{fact_set} facts"
    match experiment:
        case 1:
            one = run.one_fact[fact_set]
            yield _best_rates(one, label)
            yield _shared_rates(one, label)
        case 2:
            batch = run.batch_of_ten[fact_set]
            yield from _paper_tables(batch, label, published=fact_set == PAPER)
            yield _finer(batch, label)
        case 3:
            yield _sweep_steps(run.rate_sweep[fact_set], label)
        case 4:
            yield _courses(run.many_steps[fact_set], label)


def by_model(runs: Sequence[RunSummary]) -> Table:
    """The counts that runs are compared by, one column a model."""
    counts = [dict(named_counts(run)) for run in runs]
    names = dict.fromkeys(name for of_one in counts for name in of_one)
    rows = tuple(
        (name, *(shown_fraction(of_one[name]) if name in of_one else NONE for of_one in counts))
        for name in names
    )
    header = ("experiment, facts: count", *(run.model for run in runs))
    return Table("Models beside each other", header, rows)


# --- Experiment 1 ---------------------------------------------------------------------------------


def _best_rates(summary: OneFactSummary, label: str) -> Table:
    rows = []
    for curve in summary.curves:
        best = curve.results[curve.best]
        good = [curve.rates[n] for n in sorted(curve.good)]
        rows.append(
            (
                curve.fact.question,
                curve.fact.answer,
                shown_fraction(curve.base.count),
                f"{curve.rates[curve.best]:.3g}" if curve.learned else "none",
                shown_fraction(best.count),
                f"{good[0]:.3g} to {good[-1]:.3g} ({len(good)})" if good else NONE,
                shown_percent(curve.base.probability),
                shown_percent(best.probability),
            )
        )
    header = (
        *("question", "answer", "base model", "best rate", "right at the best rate"),
        *("good rates", "exact, base", "exact, at the best rate"),
    )
    return Table(f"Experiment 1: each fact's best rate ({label})", header, tuple(rows))


def _shared_rates(summary: OneFactSummary, label: str) -> Table:
    overlap = summary.overlap
    low, high = overlap.loss_interval
    rows = (
        ("facts with a best rate", f"{overlap.learned} of {len(summary.curves)}"),
        ("highest best rate, times the lowest", shown_number(overlap.ratio)),
        (
            "good rates that two facts share, mean over pairs",
            shown_percent(overlap.pairs),
        ),
        ("pairs that share none", f"{overlap.apart} of {overlap.pair_count}"),
        ("best single rate for all", shown_number(overlap.common_rate)),
        ("facts for which it is good", f"{overlap.good_at_common} of {overlap.learned}"),
        ("right, each at its own best rate", shown_fraction(overlap.own)),
        ("right, all at the single rate", shown_fraction(overlap.common)),
        (
            "lost by sharing one rate, 95%",
            f"{shown_range(low, high)} of all samples" if overlap.learned else NONE,
        ),
    )
    return Table(f"Experiment 1: do facts share a rate? ({label})", ("", ""), rows)


# --- Experiment 2 ---------------------------------------------------------------------------------


def _paper_tables(summary: BatchSummary, label: str, *, published: bool) -> Iterator[Table]:
    for number, rows, theirs, what in (
        (1, summary.trained, reference.TABLE_1, "trained questions"),
        (2, summary.correlated, reference.TABLE_2, "correlated, untrained questions"),
    ):
        title = f"Table {number}: {what}, before and after one step on the batch ({label})"
        header = ["question", "answer", "base model: ours", "1 epoch: ours"]
        if published:
            header[3:3] = ["base model: published"]
            header += [
                "1 epoch: published",
                f"of {reference.AS_PRINTED:,} (as printed)",
                f"of {reference.AS_CODED:,} (as coded)",
                "ours against both",
            ]
        body = [
            _row_with_published(row, theirs[n])
            if published
            else (
                row.question,
                row.fact.answer,
                shown_fraction(row.before.count),
                shown_fraction(row.after.count),
            )
            for n, row in enumerate(rows)
        ]
        yield Table(title, tuple(header), tuple(body))


def _row_with_published(row: Row, theirs: reference.BeforeAfter) -> tuple[str, ...]:
    printed = theirs.counts(reference.AS_PRINTED)[1]
    coded = theirs.counts(reference.AS_CODED)[1]
    verdicts = [verdict(row.after.count, count) for count in (printed, coded)]
    return (
        row.question,
        row.fact.answer,
        shown_fraction(row.before.count),
        str(theirs.before),
        shown_fraction(row.after.count),
        str(theirs.after),
        _share_and_interval(printed),
        _share_and_interval(coded),
        verdicts[0] if verdicts[0] == verdicts[1] else f"{verdicts[0]} / {verdicts[1]}",
    )


def _share_and_interval(count: Count) -> str:
    return f"{shown_percent(count.rate or 0.0)} ({shown_range(*count.interval)})"


def _finer(summary: BatchSummary, label: str) -> Table:
    """What counting cannot see: exact probabilities, and the estimate along sampled paths."""
    rows = [
        (
            row.question,
            shown_percent(row.before.probability),
            shown_percent(row.after.probability),
            _estimated(row.before),
            _estimated(row.after),
            _gain(row.after),
        )
        for row in (*summary.trained, *summary.correlated)
    ]
    header = (
        *("question", "exact, base model", "exact, 1 epoch", "estimated, base model"),
        *("estimated, 1 epoch", "by counting it would take so many times the tokens"),
    )
    return Table(
        "Experiment 2, finer than counts: probability of exactly the answer after Q/A, and the"
        f" estimate along sampled paths ({label})",
        header,
        tuple(rows),
    )


def _estimated(found: Pooled) -> str:
    interval = found.estimate_interval
    if found.estimate is None or interval is None:
        return NONE
    return f"{shown_percent(found.estimate)} ({shown_range(*interval)})"


def _gain(found: Pooled) -> str:
    if found.gain is None:
        return NONE
    return f"{found.gain:,.0f}" if found.gain >= 10 else f"{found.gain:.2g}"


# --- Experiments 3 and 4 --------------------------------------------------------------------------


def _sweep_steps(summary: SweepSummary, label: str) -> Table:
    rows = []
    for step, noise in enumerate(summary.noise):
        best = summary.courses[summary.best(step)]
        together = best.results[step]
        rows.append(
            (
                str(step + 1),
                f"{best.learning_rate:.3g}",
                shown_fraction(best.over_facts(step).count),
                _spread(together),
                shown_number(noise),
            )
        )
    header = (
        *("step", "best rate for the batch", "right, all ten together", "facts, lowest to highest"),
        "neighboring rates differ, times chance",
    )
    return Table(f"Experiment 3: after each step ({label})", header, tuple(rows))


def _courses(summary: CoursesSummary, label: str) -> Table:
    rows = []
    for course in summary.courses:
        best, last = (course.over_facts(place).count for place in (course.best, -1))
        facts = [course.over_steps(number) for number in range(len(summary.facts))]
        order = sorted(range(len(facts)), key=lambda n: facts[n].count.count)
        rows.append(
            (
                f"{course.learning_rate:.0e}",
                f"{course.steps[course.best]}: {shown_fraction(best)}",
                f"{course.steps[-1]}: {shown_fraction(last)}",
                f"{summary.facts[order[-1]].id}: {shown_fraction(facts[order[-1]].count)}",
                f"{summary.facts[order[0]].id}: {shown_fraction(facts[order[0]].count)}",
            )
        )
    header = (
        *("rate", "best step, all ten", "last step, all ten"),
        *("best fact, all steps", "worst fact, all steps"),
    )
    return Table(f"Experiment 4: {len(summary.courses)} rates ({label})", header, tuple(rows))


def _spread(found: Sequence[Pooled]) -> str:
    shares = [one.count.rate or 0.0 for one in found]
    return shown_range(min(shares), max(shares))
