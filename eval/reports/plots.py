"""Pictures as PNG: how they are drawn, and what several reports draw."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.errors import ConfigError
from eval.metrics import Count

_DPI = 120


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with the name of its file and what it shows."""

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True, slots=True)
class ThemedPicture:
    """A picture that is drawn twice, for light and for dark pages.

    Attributes:
        name: of its files, without an ending.
        caption: what it shows.
        png: on white.
        svg: for a light page, without a ground.
        dark: SVG for a dark page, likewise.
    """

    name: str
    caption: str
    png: bytes
    svg: bytes
    dark: bytes


def require_matplotlib() -> None:
    """Checks that pictures can be drawn; to be called before hours of work.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ConfigError(
            "pictures need matplotlib: pip install 'continual-agent[eval]', or leave out --out"
        ) from error


def draw(name: str, caption: str, paint: Callable[[Any], None]) -> Picture:
    """One picture, painted on the axes of matplotlib."""
    # Not pyplot: it keeps state, and may want a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    paint(axes)
    axes.set_title(caption, fontsize=11)
    file = io.BytesIO()
    # Without the version of matplotlib in it, the same results give the same bytes.
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return Picture(f"{name}.png", caption, file.getvalue())


def bars_by_age(axes: Any, groups: Sequence[tuple[str, Sequence[tuple[str, Count]]]]) -> None:
    """Shares by age with their intervals, a group of bars for each age.

    Args:
        axes: to paint on.
        groups: name of each, and its shares by the name of the age; the ages are the same in all.
    """
    width = 0.8 / len(groups)
    for number, (name, counted) in enumerate(groups):
        shares = [count.rate or 0.0 for _, count in counted]
        intervals = [count.interval for _, count in counted]
        errors = [
            [share - low for share, (low, _) in zip(shares, intervals, strict=True)],
            [high - share for share, (_, high) in zip(shares, intervals, strict=True)],
        ]
        places = [place + number * width for place in range(len(shares))]
        axes.bar(places, shares, width, yerr=errors, capsize=3, label=name)
    ages = [name for name, _ in groups[0][1]]
    middle = 0.4 - width / 2
    axes.set_xticks([place + middle for place in range(len(ages))], ages)
    axes.set(ylabel="share", ylim=(0, 1.05))


def rate_histogram(axes: Any, counts: Mapping[float, int]) -> None:
    """How many steps were taken at each learning rate."""
    smallest, largest = min(counts) / 1.5, max(counts) * 1.5
    bins = 24
    edges = [smallest * (largest / smallest) ** (i / bins) for i in range(bins + 1)]
    axes.hist(list(counts), bins=edges, weights=list(counts.values()))
    axes.set(xlabel="learning rate", ylabel="steps", xscale="log")
