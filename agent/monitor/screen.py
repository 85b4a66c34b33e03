"""Takes the terminal over, draws only what has changed, and restores it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.color import ColorSystem
from rich.console import COLOR_SYSTEMS, Console
from rich.style import Style

from agent.monitor.lines import ASCII, UNICODE, Frame, Glyphs, Line

# The alternate screen, no cursor, and no wrapping of a line that fills its row.
_TAKE = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_GIVE_BACK = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_CLEAR = "\x1b[0m\x1b[2J"


def glyphs_of(console: Console) -> Glyphs:
    """Returns the glyphs that a terminal of this encoding can show."""
    return UNICODE if console.encoding.lower().replace("-", "") == "utf8" else ASCII


def encodable(text: str, encoding: str) -> str:
    """Replaces characters that an encoding lacks by question marks."""
    return text.encode(encoding, "replace").decode(encoding)


class Screen:
    """Draws frames, row by row where they differ.

    Args:
        console: determines the colors (NO_COLOR, TERM) and the file to write to.
    """

    def __init__(self, console: Console) -> None:
        self._file: TextIO = console.file  # type: ignore[assignment] # an IO[str] is enough
        self._colors: ColorSystem | None = COLOR_SYSTEMS.get(console.color_system or "")
        self._plain = console.no_color
        self._encoding = console.encoding
        self._drawn: tuple[Line, ...] = ()
        self._size = (0, 0)

    def size(self) -> tuple[int, int]:
        """Returns the current columns and rows."""
        try:
            return tuple(os.get_terminal_size(self._file.fileno()))  # type: ignore[return-value]
        except OSError:
            return 80, 24

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Holds the whole terminal inside the block."""
        self.take()
        try:
            yield
        finally:
            self.give_back()

    def take(self) -> None:
        """Switches to the alternate screen; the next frame is drawn in full."""
        self._drawn = ()
        self._write(_TAKE)

    def give_back(self) -> None:
        """Switches back to the previous screen, unless the terminal is gone."""
        with suppress(OSError):
            self._write(_GIVE_BACK)

    def draw(self, frame: Frame, size: tuple[int, int]) -> None:
        """Draws what differs from the last frame."""
        parts: list[str] = []
        if size != self._size:
            # Terminals differ in how they rearrange the old rows.
            parts.append(_CLEAR)
            self._drawn, self._size = (), size
        for row, line in enumerate(frame.lines):
            if row >= len(self._drawn) or self._drawn[row] != line:
                parts.append(f"\x1b[{row + 1};1H{self._styled(line)}")
        self._drawn = frame.lines
        if parts:
            self._write("".join(parts))

    def _styled(self, line: Line) -> str:
        return "".join(self._styled_text(text, name) for text, name in line)

    def _styled_text(self, text: str, name: str) -> str:
        if not name:
            return text
        style = Style.parse(name)
        if self._plain:
            style = style.without_color
        return style.render(text, color_system=self._colors)

    def _write(self, text: str) -> None:
        self._file.write(encodable(text, self._encoding))
        self._file.flush()
