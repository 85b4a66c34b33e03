"""Lines of styled text with an exact width, and their layout.

Rich's own tables and layouts measure everything again for each frame. Ten times a second, that
takes too much of a core.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

# Text that is clean (see `agent.monitor.text`), and the name of a rich style.
Span = tuple[str, str]
Line = list[Span]


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters to draw with.

    Attributes:
        bars: from empty to full.
        shades: of the heat map, from the lightest to the darkest.
        across: a horizontal rule.
        down: a vertical rule.
        corner: its upper end.
        dot: marks the health.
        arrow: between a question and its answer.
        ellipsis: replaces what was cut off.
    """

    bars: str
    shades: str
    across: str
    down: str
    corner: str
    dot: str
    arrow: str
    ellipsis: str


UNICODE = Glyphs(" ▁▂▃▄▅▆▇█", "·░▒▓█", "─", "│", "┬", "●", "→", "…")
ASCII = Glyphs(" .:-=+*%#", ".:+x#", "-", "|", "+", "*", "->", "...")


def width_of(line: Line) -> int:
    """Returns the width of a line in cells."""
    return sum(cell_len(text) for text, _ in line)


def fitted(line: Line, width: int) -> Line:
    """Cuts or fills a line to a width."""
    found: Line = []
    room = max(width, 0)
    for text, style in line:
        if (length := cell_len(text)) > room:
            text, length = set_cell_size(text, room), room
        if length:
            found.append((text, style))
        room -= length
    if room:
        found.append((" " * room, ""))
    return found


def spread(left: Line, right: Line, width: int) -> Line:
    """Joins two lines, the second at the right end; the first is cut if there is no room."""
    room = width - width_of(right)
    if room < 1:
        return fitted(right, width)
    return [*fitted(left, room), *right]


def stacked(lines: Sequence[Line], width: int, height: int) -> list[Line]:
    """Cuts or fills lines to a size."""
    shown = [fitted(line, width) for line in lines[: max(height, 0)]]
    return shown + [fitted([], width) for _ in range(height - len(shown))]


def rule(title: Span, width: int, glyphs: Glyphs) -> Line:
    """Makes a horizontal rule with a title."""
    text, style = title
    line: Line = [(f"{glyphs.across} ", "dim"), (text, style), (" ", "")]
    return fitted([*line, (glyphs.across * max(width - width_of(line), 0), "dim")], width)


def side_by_side(blocks: Iterable[Sequence[Line]], glyphs: Glyphs) -> list[Line]:
    """Puts blocks of equal height next to each other, with vertical rules between them."""
    found: list[Line] = []
    for number, row in enumerate(zip(*blocks, strict=True)):
        between = f" {glyphs.down} " if number else f"{glyphs.across}{glyphs.corner}{glyphs.across}"
        joined: Line = list(row[0])
        for line in row[1:]:
            joined += [(between, "dim"), *line]
        found.append(joined)
    return found


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole screen, as a rich renderable."""

    lines: tuple[Line, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the lines."""
        for line in self.lines:
            for text, style in line:
                yield Segment(text, Style.parse(style) if style else None)
            yield Segment.line()

    def plain(self) -> str:
        """As text without styles."""
        return "\n".join("".join(text for text, _ in line).rstrip() for line in self.lines)
