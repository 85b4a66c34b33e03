"""Pictures of the suite `continual`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eval.metrics import Count
from eval.reports.plots import Picture, bars_by_age, draw, rate_histogram, require_matplotlib
from eval.suites.continual.summary import AgeGroup, Checkpoint, Summary


def pictures(summaries: Sequence[Summary]) -> list[Picture]:
    """All pictures: those that compare the teachers, then those of each.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    require_matplotlib()
    drawn = [
        _draw("recall", "Facts answered right, of all taught so far", summaries, _recall),
        _draw("paraphrase", "Paraphrased questions answered right", summaries, _paraphrase),
        _draw("transfer", "Correlated questions answered right", summaries, _transfer),
        _draw("leak", "Untaught questions answered with a taught answer", summaries, _leak),
        _draw("retention", "Recall in the end, by facts taught since", summaries, _retention),
    ]
    if any(summary.last.change for summary in summaries):
        caption = "Perplexity against the base model (solid: WikiText, dashed: mixed text)"
        drawn.append(_draw("perplexity", caption, summaries, _perplexity))
    for summary in summaries:
        one = [summary]
        of = f" ({summary.name})"
        if summary.rate_counts:
            drawn.append(_draw(f"rates-{summary.name}", f"Learning rates{of}", one, _rates))
        caption = f"R: is fact j (column) answered after fact i (row)?{of}"
        drawn.append(_draw(f"matrix-{summary.name}", caption, one, _matrix))
    return drawn


def _draw(
    name: str,
    caption: str,
    summaries: Sequence[Summary],
    paint: Callable[[Any, Sequence[Summary]], None],
) -> Picture:
    return draw(name, caption, lambda axes: paint(axes, summaries))


def _recall(axes: Any, summaries: Sequence[Summary]) -> None:
    _course(axes, summaries, lambda point: point.recall)


def _paraphrase(axes: Any, summaries: Sequence[Summary]) -> None:
    _course(axes, summaries, lambda point: point.paraphrase)


def _transfer(axes: Any, summaries: Sequence[Summary]) -> None:
    _course(axes, summaries, lambda point: point.transfer)


def _leak(axes: Any, summaries: Sequence[Summary]) -> None:
    _course(axes, summaries, lambda point: point.leaks.leaked)


def _course(
    axes: Any, summaries: Sequence[Summary], counted: Callable[[Checkpoint], Count]
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


def _retention(axes: Any, summaries: Sequence[Summary]) -> None:
    groups = [
        (summary.name, [(_age_name(age), age.recall) for age in summary.ages])
        for summary in summaries
    ]
    bars_by_age(axes, groups)
    axes.set(xlabel="facts taught since")
    axes.legend()


def _age_name(age: AgeGroup) -> str:
    return str(age.youngest) if age.youngest == age.oldest else f"{age.youngest}-{age.oldest}"


def _perplexity(axes: Any, summaries: Sequence[Summary]) -> None:
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


def _rates(axes: Any, summaries: Sequence[Summary]) -> None:
    rate_histogram(axes, summaries[0].rate_counts)


def _matrix(axes: Any, summaries: Sequence[Summary]) -> None:
    measured = [m for m in summaries[0].history.measurements if m.taught]
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
