"""Makes text from outside safe for a terminal, and cuts it to a width.

Facts may contain anything: escape sequences, control characters, right-to-left characters, wide
ones, and combining ones. The result always has exactly the width that was asked for.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from rich.cells import cell_len, chop_cells, set_cell_size

# The most combining marks on one character. Some languages need two.
MARKS = 2
# Variation selectors make the character before them wide in some terminals only.
_SELECTORS = dict.fromkeys(range(0xFE00, 0xFE10))
# Longer texts are cut in any case.
_LONGEST = 4000
# Cached texts: each frame draws the same ones.
_KEPT = 2048


@lru_cache(_KEPT)
def clean(text: str) -> str:
    """Makes one line that a terminal shows as it is; unprintable characters are escaped."""
    text = text[:_LONGEST]
    if text.isascii() and text.isprintable():
        return text
    found: list[str] = []
    marks = 0
    for character in text.translate(_SELECTORS):
        if not character.isprintable():
            found.append(repr(character)[1:-1])
            marks = 0
        elif cell_len(character) == 0 or unicodedata.combining(character):
            marks += 1
            # At the start of a line it would combine with what is left of it.
            if found and marks <= MARKS:
                found.append(character)
        else:
            found.append(character)
            marks = 0
    return "".join(found)


@lru_cache(_KEPT)
def fit(text: str, width: int, ellipsis: str = "…") -> str:
    """Cleans a text, and cuts or fills it to a width; an ellipsis shows a cut."""
    text = clean(text)
    if cell_len(text) > width and width > len(ellipsis):
        text = set_cell_size(text, width - len(ellipsis)).rstrip() + ellipsis
    return set_cell_size(text, max(width, 0))


def wrap(text: str, width: int, lines: int, ellipsis: str = "…") -> list[str]:
    """Cleans a text, and wraps it into at most `lines` lines of exactly `width` cells."""
    found = [""]
    for word in clean(text).split(" "):
        joined = f"{found[-1]} {word}" if found[-1] else word
        if cell_len(joined) <= width:
            found[-1] = joined
        else:
            # A word longer than a line is broken.
            pieces = chop_cells(word, max(width, 2))
            found = [*found, *pieces] if found[-1] else pieces
    shown = found[: max(lines, 1)]
    if len(found) > len(shown):
        shown[-1] += " " + found[len(shown)]
    return [fit(line, width, ellipsis) for line in shown]
