"""Decodes the bytes of a terminal to names of keys."""

from __future__ import annotations

import codecs
import os
import select
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

UP, DOWN, LEFT, RIGHT = "up", "down", "left", "right"
PAGE_UP, PAGE_DOWN, HOME, END = "page up", "page down", "home", "end"
ENTER, ESCAPE, BACKSPACE = "enter", "escape", "backspace"

# After ESC [ or ESC O, with and without a number.
_FINALS = {"A": UP, "B": DOWN, "C": RIGHT, "D": LEFT, "H": HOME, "F": END}
_NUMBERS = {"1": HOME, "7": HOME, "4": END, "8": END, "5": PAGE_UP, "6": PAGE_DOWN}
_SINGLES = {"\r": ENTER, "\n": ENTER, "\x7f": BACKSPACE, "\x08": BACKSPACE}
# Over a slow line the rest of a key's bytes may come this much later than its first.
SPLIT_SECONDS = 0.05
_CHUNK = 1024


class KeyDecoder:
    """Decodes keys from bytes, however they are split."""

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    @property
    def unfinished(self) -> bool:
        """Whether the last bytes may be the beginning of a key."""
        return bool(self._rest)

    def keys(self, typed: bytes, *, last: bool = False) -> list[str]:
        """Returns the complete keys.

        Args:
            typed: the bytes that were read.
            last: no more bytes follow soon, so an escape is the key of that name.
        """
        text, found = self._rest + self._text.decode(typed), []
        while text:
            key, length = _first(text)
            if length == 0 and not last:
                break
            if length == 0:
                key, length = ESCAPE, 1
            if key:
                found.append(key)
            text = text[length:]
        self._rest = text
        return found


def _first(text: str) -> tuple[str, int]:
    """Returns the first key (empty if unused) and its length; 0 if it is incomplete."""
    if text[0] != "\x1b":
        return _SINGLES.get(text[0], text[0] if text[0].isprintable() else ""), 1
    if len(text) == 1:
        return "", 0
    if text[1] not in "[O":
        return ESCAPE, 1
    for place, character in enumerate(text[2:], start=2):
        if character in "~^$@" or character.isalpha():
            number = text[2:place].partition(";")[0]
            if character == "~":
                return _NUMBERS.get(number, ""), place + 1
            return _FINALS.get(character, ""), place + 1
    return "", 0


class Keyboard:
    """The keys of a terminal.

    Args:
        descriptor: of the terminal, in the mode that `typing` sets.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._decoder = KeyDecoder()

    def read(self) -> list[str] | None:
        """Waits for keys and returns them; None if the terminal is gone."""
        keys: list[str] = []
        while True:
            try:
                typed = os.read(self.descriptor, _CHUNK)
            except OSError:
                return None
            if not typed:
                return None
            keys += self._decoder.keys(typed)
            if not self._decoder.unfinished:
                return keys
            if not select.select([self.descriptor], [], [], SPLIT_SECONDS)[0]:
                return keys + self._decoder.keys(b"", last=True)


@contextmanager
def typing(descriptor: int) -> Iterator[None]:
    """Reads keys one by one without echo; Ctrl-C and Ctrl-Z work as usual."""
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor, termios.TCSANOW)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
