"""Lines of styled text with an exact width, and how they are put beside and above each other.

Rich's own tables and layouts measure everything anew each time, which ten times a second costs
more of a core than a monitor may take.
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
    """The characters that pictures are drawn with.

    Attributes:
        bars: from empty to full, from the bottom on.
        shades: from nothing to all, of a cell of the heat map.
        across: of a horizontal rule.
        down: of a vertical one.
        corner: where it begins.
        dot: before the health.
        arrow: from a question to its answer.
        ellipsis: for what was cut off.
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
    """In cells."""
    return sum(cell_len(text) for text, _ in line)


def fitted(line: Line, width: int) -> Line:
    """The line with exactly so many cells."""
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
    """Two lines as one, the second at the right end; it gives way to the first last."""
    room = width - width_of(right)
    if room < 1:
        return fitted(right, width)
    return [*fitted(left, room), *right]


def stacked(lines: Sequence[Line], width: int, height: int) -> list[Line]:
    """So many lines of this width; the last ones are cut off, or empty."""
    shown = [fitted(line, width) for line in lines[: max(height, 0)]]
    return shown + [fitted([], width) for _ in range(height - len(shown))]


def rule(title: Span, width: int, glyphs: Glyphs) -> Line:
    """A horizontal line with a title in it."""
    text, style = title
    line: Line = [(f"{glyphs.across} ", "dim"), (text, style), (" ", "")]
    return fitted([*line, (glyphs.across * max(width - width_of(line), 0), "dim")], width)


def beside(blocks: Iterable[Sequence[Line]], glyphs: Glyphs) -> list[Line]:
    """Blocks of equal height next to each other, with a line between two from their titles on."""
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
