"""Pictures: how they are drawn, on white or in two themes, and what several reports draw."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from agent.errors import ConfigError
from eval.metrics import Count

_DPI = 120
_INK_ON_LIGHT, _INK_ON_DARK = "#1a1a1a", "#e8e8e8"
# Ten colors that stand out from white and from near-black.
COLORS = (
    *("#3b82c4", "#e8833a", "#3fa34d", "#d64b4b", "#9467bd"),
    *("#a9746e", "#d66fb3", "#8a8a8a", "#b5a41f", "#1fa9b8"),
)


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
        svg: for a light page, without a background.
        dark: SVG for a dark page, without a background.
    """

    name: str
    caption: str
    png: bytes
    svg: bytes
    dark: bytes


def require_matplotlib() -> None:
    """Checks that pictures can be drawn, before hours of work.

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
    """Draws a picture on a white page; `paint` gets the axes of matplotlib."""
    figure = _figure((8, 4))
    axes = figure.add_subplot()
    paint(axes)
    axes.set_title(caption, fontsize=11)
    return Picture(f"{name}.png", caption, _saved(figure, "png", "white"))


def themed(
    name: str, caption: str, size: tuple[float, float], paint: Callable[[Any], None]
) -> ThemedPicture:
    """Draws a picture in both themes.

    Args:
        name: of its files, without an ending.
        caption: what it shows.
        size: width and height, inches.
        paint: puts axes into an empty `matplotlib.figure.Figure`.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    require_matplotlib()
    svg, png = _drawn(_INK_ON_LIGHT, size, paint, (("svg", "none"), ("png", "white")))
    (dark,) = _drawn(_INK_ON_DARK, size, paint, (("svg", "none"),))
    return ThemedPicture(name=name, caption=caption, png=png, svg=svg, dark=dark)


def _drawn(
    ink: str,
    size: tuple[float, float],
    paint: Callable[[Any], None],
    kinds: Sequence[tuple[str, str]],
) -> list[bytes]:
    """One picture in several kinds of file, each with its background color."""
    from matplotlib import rc_context

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    settings: dict[str, Any] = dict.fromkeys(inked, ink)
    settings |= {
        "axes.facecolor": "none",
        "legend.framealpha": 0.0,
        "font.size": 10,
        # The same results give the same bytes.
        "svg.hashsalt": "continual-agent",
    }
    with rc_context(cast(Any, settings)):
        figure = _figure(size)
        paint(figure)
        return [_saved(figure, kind, background) for kind, background in kinds]


def _figure(size: tuple[float, float]) -> Any:
    # Not pyplot, which keeps state and may need a display.
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _saved(figure: Any, kind: str, background: str) -> bytes:
    file = io.BytesIO()
    # Without date and version, the same results give the same bytes.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(file, format=kind, dpi=_DPI, facecolor=background, metadata=metadata)
    return file.getvalue()


def interval_errors(counts: Sequence[Count], scale: float = 1.0) -> list[list[float]]:
    """Distances of the shares to the ends of their intervals: below, then above."""
    found = [(count.rate or 0.0, *count.interval) for count in counts]
    below = [max(0.0, share - low) * scale for share, low, _ in found]
    above = [max(0.0, high - share) * scale for share, _, high in found]
    return [below, above]


def bars_by_age(axes: Any, groups: Sequence[tuple[str, Sequence[tuple[str, Count]]]]) -> None:
    """Shares by age with their intervals, a group of bars for each age.

    Args:
        axes: to paint on.
        groups: name of each, and its shares by the name of the age; the ages are the same in all.
    """
    width = 0.8 / len(groups)
    for number, (name, counted) in enumerate(groups):
        shares = [count.rate or 0.0 for _, count in counted]
        errors = interval_errors([count for _, count in counted])
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
