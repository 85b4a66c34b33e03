"""Pictures that are drawn twice, for light and for dark pages, as SVG; and once more as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, cast

from eval.reports.plots import ThemedPicture, require_matplotlib

_DPI = 120
_INK = {"light": "#1a1a1a", "dark": "#e8e8e8"}
# Ten colours that stand out from white and from near-black alike.
COLORS = (
    *("#3b82c4", "#e8833a", "#3fa34d", "#d64b4b", "#9467bd"),
    *("#a9746e", "#d66fb3", "#8a8a8a", "#b5a41f", "#1fa9b8"),
)


def themed(
    name: str, caption: str, size: tuple[float, float], draw: Callable[[Any], None]
) -> ThemedPicture:
    """Draws a picture in both themes.

    Args:
        name: of its files, without an ending.
        caption: what it shows.
        size: width and height, inches.
        draw: puts axes into an empty `matplotlib.figure.Figure`.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    require_matplotlib()
    svg, png = _drawn(_INK["light"], size, draw, (("svg", "none"), ("png", "white")))
    (dark,) = _drawn(_INK["dark"], size, draw, (("svg", "none"),))
    return ThemedPicture(name=name, caption=caption, png=png, svg=svg, dark=dark)


def _drawn(
    ink: str,
    size: tuple[float, float],
    draw: Callable[[Any], None],
    kinds: Sequence[tuple[str, str]],
) -> list[bytes]:
    """One picture in several kinds of file, each with the colour of its ground."""
    # Not pyplot: it keeps state, and may want a display.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    settings: dict[str, Any] = dict.fromkeys(inked, ink)
    settings |= {
        "axes.facecolor": "none",
        "legend.framealpha": 0.0,
        "font.size": 10,
        # The same results give the same bytes.
        "svg.hashsalt": "continual-agent",
    }
    files = []
    with rc_context(cast(Any, settings)):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        for kind, ground in kinds:
            file = io.BytesIO()
            metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(file, format=kind, dpi=_DPI, facecolor=ground, metadata=metadata)
            files.append(file.getvalue())
    return files
