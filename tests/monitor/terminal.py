"""A terminal of our own: a pty, what is typed into it, and the screen that comes out."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 60.0
TAKEN, GIVEN_BACK = "\x1b[?1049h", "\x1b[?1049l"


class Terminal:
    """Keeps the rows as `agent.monitor.screen` draws them.

    Attributes:
        output: all that came out.
        rows: what stands in each row, without styles.
    """

    def __init__(self, width: int = 80, height: int = 24) -> None:
        self.person, self.program = pty.openpty()
        self.resize(width, height)
        self.output = ""
        self.rows: dict[int, str] = {}

    def resize(self, width: int, height: int) -> None:
        size = struct.pack("HHHH", height, width, 0, 0)
        fcntl.ioctl(self.program, termios.TIOCSWINSZ, size)

    def attributes(self) -> list[Any]:
        return termios.tcgetattr(self.program)

    def type(self, keys: str) -> None:
        os.write(self.person, keys.encode())

    @property
    def text(self) -> str:
        return "\n".join(text for _, text in sorted(self.rows.items()))

    def read(self, seconds: float) -> None:
        """Takes what comes out within so many seconds."""
        if select.select([self.person], [], [], seconds)[0]:
            self.output += os.read(self.person, 65536).decode(errors="replace")
        self.rows = {}
        screen = self.output.rpartition("\x1b[2J")[2]
        for row, text in re.findall(
            r"\x1b\[(\d+);1H(.*?)(?=\x1b\[\d+;1H|\x1b\[\?|$)", screen, re.S
        ):
            self.rows[int(row)] = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip()

    def until(self, condition: Callable[[Terminal], object]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition(self):
            assert time.monotonic() < deadline, self.text
            self.read(0.05)

    def until_shown(self, text: str) -> None:
        self.until(lambda terminal: text in terminal.text)

    def hang_up(self) -> None:
        """As when a window is closed, or a connection breaks."""
        os.close(self.person)
        self.person = -1

    def close(self) -> None:
        if self.person >= 0:
            os.close(self.person)
        os.close(self.program)
