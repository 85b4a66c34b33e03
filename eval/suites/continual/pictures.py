"""Pictures of the suite `continual`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from eval.metrics import Count
from eval.reports.plots import Picture, bars_by_age, draw, rate_histogram, require_matplotlib
from eval.reports.tables import shown_ages
from eval.suites.continual.summary import Checkpoint, Summary

# Shares that are drawn over the number of facts taught: file, caption, and the count.
COURSES = (
    ("recall", "Facts answered right, of all taught so far", attrgetter("recall")),
    ("paraphrase", "Paraphrased questions answered right", attrgetter("paraphrase")),
    ("transfer", "Correlated questions answered right", attrgetter("transfer")),
    ("leak", "Untaught questions answered with a taught answer", attrgetter("leaks.leaked")),
)


def pictures(summaries: Sequence[Summary]) -> list[Picture]:
    """All pictures: those that compare the teachers, then those of each.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    require_matplotlib()
    drawn = [
        draw(name, caption, partial(_course, summaries, counted))
        for name, caption, counted in COURSES
    ]
    caption = "Recall in the end, by facts taught since"
    drawn.append(draw("retention", caption, partial(_retention, summaries)))
    if any(summary.last.change for summary in summaries):
        caption = "Perplexity against the base model (solid: WikiText, dashed: mixed text)"
        drawn.append(draw("perplexity", caption, partial(_perplexity, summaries)))
    for summary in summaries:
        name = summary.name
        if rates := summary.rate_counts:
            paint = partial(rate_histogram, counts=rates)
            drawn.append(draw(f"rates-{name}", f"Learning rates ({name})", paint))
        caption = f"R: is fact j (column) answered after fact i (row)? ({name})"
        drawn.append(draw(f"matrix-{name}", caption, partial(_matrix, summary)))
    return drawn


def _course(
    summaries: Sequence[Summary], counted: Callable[[Checkpoint], Count], axes: Any
) -> None:
    """A share over the number of facts taught, with its interval as a band."""
    for number, summary in enumerate(summaries):
        points = [point for point in summary.checkpoints if counted(point).total and point.taught]
        taught = [point.taught for point in points]
        color = f"C{number}"
        shares = [counted(point).rate for point in points]
        axes.plot(taught, shares, marker="o", color=color, label=summary.name)
        intervals = [counted(point).interval for point in points]
        lows, highs = [low for low, _ in intervals], [high for _, high in intervals]
        axes.fill_between(taught, lows, highs, color=color, alpha=0.15)
    axes.set(xlabel="facts taught", ylabel="share", ylim=(-0.02, 1.02), xscale="log")
    _plain_ticks(axes, sorted({p.taught for s in summaries for p in s.checkpoints if p.taught}))
    axes.grid(alpha=0.3)
    axes.legend()


def _retention(summaries: Sequence[Summary], axes: Any) -> None:
    groups = [
        (summary.name, [(shown_ages(age.youngest, age.oldest), age.recall) for age in summary.ages])
        for summary in summaries
    ]
    bars_by_age(axes, groups)
    axes.set(xlabel="facts taught since")
    axes.legend()


def _perplexity(summaries: Sequence[Summary], axes: Any) -> None:
    for number, summary in enumerate(summaries):
        changes = [(p.taught, p.change) for p in summary.checkpoints if p.change is not None]
        taught = [n for n, _ in changes]
        color = f"C{number}"
        wikitext = [1 + change.wikitext for _, change in changes]
        axes.plot(taught, wikitext, marker="o", color=color, label=summary.name)
        mixed = [1 + change.mixed for _, change in changes]
        axes.plot(taught, mixed, marker="o", color=color, linestyle="--")
    axes.axhline(1, color="gray", linewidth=0.8)
    # The base model is at 0, which is not on a logarithmic axis.
    axes.set_xscale("symlog", linthresh=10)
    axes.set(xlabel="facts taught", ylabel="ratio to the base model")
    _plain_ticks(axes, sorted({p.taught for s in summaries for p in s.checkpoints}))
    axes.grid(alpha=0.3)
    axes.legend()


def _matrix(summary: Summary, axes: Any) -> None:
    measured = [m for m in summary.history.measurements if m.taught]
    width = measured[-1].taught
    # Facts that were not taught yet stay blank.
    nothing = float("nan")
    rows = [
        [float(answer.correct) for answer in m.retention] + [nothing] * (width - m.taught)
        for m in measured
    ]
    axes.imshow(
        rows,
        aspect="auto",
        cmap="RdYlGn",
        vmin=0,
        vmax=1,
        interpolation="nearest",
        extent=(0.5, width + 0.5, len(rows) - 0.5, -0.5),
    )
    axes.set_yticks(range(len(rows)), [str(m.taught) for m in measured])
    axes.set(xlabel="fact j, in the order of teaching", ylabel="facts taught")


def _plain_ticks(axes: Any, places: Sequence[int]) -> None:
    axes.set_xticks(places, [str(place) for place in places])
    axes.minorticks_off()
