"""Figures 1, 2 and 3 of the paper from our counts, with its axes, and further figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from eval.metrics import Count
from eval.reports.plots import COLORS, ThemedPicture, interval_errors, themed
from eval.suites.paper import reference
from eval.suites.paper.courses import CoursesSummary
from eval.suites.paper.facts import PAPER
from eval.suites.paper.measurements import Pooled
from eval.suites.paper.one_fact import Curve, OneFactSummary
from eval.suites.paper.rate_sweep import SweepSummary
from eval.suites.paper.summary import RunSummary

_RATE = "learning rate"
_COLUMNS = 5


def figures(run: RunSummary, experiment: int, fact_set: str) -> Iterator[ThemedPicture]:
    """The pictures of one experiment with one set of facts.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    suffix = "" if fact_set == PAPER else f"-{fact_set}"
    label = f"{run.model}, {fact_set} facts"
    if experiment == 1:
        one = run.one_fact[fact_set]
        yield from _of_one_fact(one, label, suffix, published=fact_set == PAPER)
    elif experiment == 3:
        yield from _of_sweep(run.rate_sweep[fact_set], label, suffix)
    elif experiment == 4:
        yield from _of_many_steps(run.many_steps[fact_set], label, suffix)


# --- Figure 1 -------------------------------------------------------------------------------------


def _of_one_fact(
    summary: OneFactSummary, label: str, suffix: str, *, published: bool
) -> Iterator[ThemedPicture]:
    first = summary.curves[0]
    samples = first.base.count.total
    source = "; published points are of pythia-410m" if published else ""
    yield themed(
        f"figure-1{suffix}",
        f"Figure 1: right answers of {samples} at each rate, one step on the {first.fact.id} fact"
        f" ({label}). Bars: 95% Wilson intervals{source}.",
        (8, 4.5),
        partial(_one_curve, curve=first, published=published),
    )
    yield themed(
        f"figure-1-facts{suffix}",
        f"Figure 1 for each of the ten facts by itself ({label}). Dashed: before the step.",
        (12, 5.5),
        partial(_all_curves, curves=summary.curves),
    )
    yield themed(
        f"figure-1-overlap{suffix}",
        "Rates that give a fact at least half of its best count; the cross is its best rate"
        f" ({label}). The vertical line is the best single rate for all.",
        (8, 4.5),
        partial(_good_rates, summary=summary),
    )


def _one_curve(figure: Any, curve: Curve, published: bool) -> None:
    axes = figure.add_subplot()
    counts = [found.count for found in curve.results]
    axes.errorbar(
        curve.rates,
        [count.count for count in counts],
        yerr=interval_errors(counts, scale=counts[0].total),
        color=COLORS[0],
        ecolor=COLORS[0] + "80",
        marker="o",
        markersize=3,
        linewidth=1,
        label="ours",
    )
    total = counts[0].total
    if published:
        axes.plot(
            [point.learning_rate for point in reference.FIGURE_1],
            [point.correct * total / reference.FIGURE_1_SAMPLES for point in reference.FIGURE_1],
            color=COLORS[1],
            marker="x",
            linestyle=":",
            label=f"published ({reference.MODEL})"
            + ("" if total == reference.FIGURE_1_SAMPLES else f", scaled from 800 to {total}"),
        )
    axes.set(ylabel=f"correct count (of {total})", ylim=(-0.02 * total, 1.05 * total))
    _rate_axis(axes)
    axes.set_title(f"{curve.fact.question}  {curve.fact.answer}", fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend()


def _all_curves(figure: Any, curves: Sequence[Curve]) -> None:
    grid = figure.subplots(2, _COLUMNS, sharex=True, sharey=True)
    total = curves[0].base.count.total
    for number, (axes, curve) in enumerate(zip(grid.flat, curves, strict=True)):
        color = COLORS[number]
        counts = [found.count.count for found in curve.results]
        axes.plot(curve.rates, counts, color=color, marker="o", markersize=2, linewidth=1)
        axes.axhline(curve.base.count.count, color=color, linestyle="--", linewidth=0.8)
        axes.set_title(f"{curve.fact.id}: {curve.fact.answer}", fontsize=9)
        axes.set_ylim(-0.02 * total, 1.05 * total)
        axes.grid(alpha=0.25)
        _rate_axis(axes, places=3, label="")
    figure.supxlabel(_RATE)
    figure.supylabel(f"correct count (of {total})")


def _good_rates(figure: Any, summary: OneFactSummary) -> None:
    axes = figure.add_subplot()
    curves = summary.curves
    for number, curve in enumerate(curves):
        good = [curve.rates[n] for n in sorted(curve.good)]
        axes.plot(good, [number] * len(good), "o", color=COLORS[number], markersize=4, alpha=0.6)
        if curve.learned:
            best = curve.rates[curve.best]
            axes.plot([best], [number], "x", color=COLORS[number], markersize=9, mew=2.5)
    if summary.overlap.common_rate is not None:
        axes.axvline(summary.overlap.common_rate, color=COLORS[7], linewidth=1)
    axes.set_yticks(range(len(curves)), [curve.fact.id for curve in curves])
    axes.set_ylim(len(curves) - 0.5, -0.5)
    axes.set_xscale("log")
    # Whole decades, so that at least two of them have labels.
    rates = curves[0].rates
    axes.set_xlim(10 ** math.floor(math.log10(rates[0])), 10 ** math.ceil(math.log10(rates[-1])))
    axes.set(xlabel=f"{_RATE} (logarithmic)", ylabel="fact")
    axes.grid(alpha=0.25, axis="x")
    if not summary.overlap.learned:
        axes.text(
            0.5, 0.5, "no fact was learned at any rate", ha="center", transform=axes.transAxes
        )


# --- Figure 2 -------------------------------------------------------------------------------------


def _of_sweep(summary: SweepSummary, label: str, suffix: str) -> Iterator[ThemedPicture]:
    steps = len(summary.noise)
    yield themed(
        f"figure-2{suffix}",
        f"Figure 2: right answers at each rate, average of {steps} steps on the batch of ten"
        f" ({label}).",
        (9, 5),
        partial(_sweep_facts, summary=summary),
    )
    yield themed(
        f"figure-2-steps{suffix}",
        f"All ten facts together after each step ({label}). Bands: 95% Wilson intervals.",
        (9, 4.5),
        partial(_sweep_steps, summary=summary),
    )


def _sweep_facts(figure: Any, summary: SweepSummary) -> None:
    axes = figure.add_subplot()
    for number, fact in enumerate(summary.facts):
        shares = [_share(course.over_steps(number)) for course in summary.courses]
        axes.plot(summary.rates, shares, color=COLORS[number], linewidth=1, label=fact.id)
    _rate_axis(axes)
    _share_axis(axes)
    _ratio_axis(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=_COLUMNS)


def _sweep_steps(figure: Any, summary: SweepSummary) -> None:
    axes = figure.add_subplot()
    for step in range(len(summary.noise)):
        counts = [course.over_facts(step).count for course in summary.courses]
        _band(axes, summary.rates, counts, COLORS[step], f"after step {step + 1}")
    _rate_axis(axes)
    _share_axis(axes)
    _ratio_axis(axes)
    axes.legend()


# --- Figure 3 -------------------------------------------------------------------------------------


def _of_many_steps(summary: CoursesSummary, label: str, suffix: str) -> Iterator[ThemedPicture]:
    samples = summary.courses[0].results[0][0].count.total
    yield themed(
        f"figure-3{suffix}",
        f"Figure 3: right answers after each step on the batch of ten, {samples} samples a question"
        f" and step, at each of {len(summary.courses)} rates ({label}). Thick: all ten together.",
        (12, 5),
        partial(_courses, summary=summary),
    )


def _courses(figure: Any, summary: CoursesSummary) -> None:
    grid = figure.subplots(1, len(summary.courses), sharey=True, squeeze=False)[0]
    for axes, course in zip(grid, summary.courses, strict=True):
        steps = [0, *course.steps]
        for number, fact in enumerate(summary.facts):
            found = [summary.base[number], *(at_step[number] for at_step in course.results)]
            shares = [_share(one) for one in found]
            axes.plot(steps, shares, color=COLORS[number], linewidth=1, label=fact.id)
        together = [Pooled.of(summary.base), *map(Pooled.of, course.results)]
        # The text color of the theme.
        ink = axes.xaxis.label.get_color()
        shares = [_share(one) for one in together]
        axes.plot(steps, shares, color=ink, linewidth=2.5, label="all ten")
        axes.set_title(f"{_RATE} {course.learning_rate:.0e}", fontsize=10)
        axes.set_xlabel("epoch (step)")
        axes.grid(alpha=0.25)
    _share_axis(grid[0])
    _ratio_axis(grid[-1])
    figure.legend(
        *grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=_COLUMNS + 1
    )


# --- Axes ----------------------------------------------------------------------------------------


def _rate_axis(axes: Any, places: int = 6, label: str = _RATE) -> None:
    axes.set_xlabel(label)
    axes.locator_params(axis="x", nbins=places)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)


def _share(found: Pooled) -> float:
    return found.count.rate or 0.0


def _band(
    axes: Any, places: Sequence[float], counts: Sequence[Count], color: str, label: str
) -> None:
    axes.plot(places, [c.rate or 0.0 for c in counts], color=color, linewidth=1, label=label)
    intervals = [count.interval for count in counts]
    lows, highs = [low for low, _ in intervals], [high for _, high in intervals]
    axes.fill_between(places, lows, highs, color=color, alpha=0.2, linewidth=0)


def _share_axis(axes: Any) -> None:
    axes.set_ylabel("correct, share of all samples")
    # Leaves room above, and an axis that is not empty if no answer was right.
    _, top = axes.get_ylim()
    axes.set_ylim(-0.02 * max(top, 0.05), max(top, 0.05))
    axes.grid(alpha=0.25)


def _ratio_axis(axes: Any) -> None:
    """On the right: correct to incorrect, as in the paper's figures."""
    bottom, top = axes.get_ylim()
    places = [place for place in axes.get_yticks() if max(0.0, bottom) <= place <= min(top, 1.0)]
    right = axes.twinx()
    right.set_ylim(bottom, top)
    right.set_yticks(places, [_ratio(place) for place in places])
    right.set_ylabel("correct to incorrect")


def _ratio(share: float) -> str:
    return f"{share / (1 - share):.3g}" if share < 1 - 1e-9 else "\u221e"
