"""Text from outside, made safe for a terminal and cut to cells.

Facts may hold anything: escape sequences, control characters, characters that run from right to
left, wide ones, and ones that pile up on another. What is drawn here always has exactly the width
that was asked for.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from rich.cells import cell_len, chop_cells, set_cell_size

# So many marks on one character are letters of some language; more are a prank.
MARKS = 2
# They make a neighbour wide in some terminals and not in others.
_SELECTORS = dict.fromkeys(range(0xFE00, 0xFE10))
# Longer texts are cut anyway: nobody sees their end.
_LONGEST = 4000
# The same texts are drawn again and again.
_KEPT = 2048


@lru_cache(_KEPT)
def clean(text: str) -> str:
    """One line that a terminal shows as it is; what is not printable is spelled out."""
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
            # One that begins the line would pile up on what stands before it.
            if found and marks <= MARKS:
                found.append(character)
        else:
            found.append(character)
            marks = 0
    return "".join(found)


@lru_cache(_KEPT)
def fit(text: str, width: int, ellipsis: str = "…") -> str:
    """Clean text of exactly so many cells; what is cut off is told by the ellipsis."""
    text = clean(text)
    if cell_len(text) > width and width > len(ellipsis):
        text = set_cell_size(text, width - len(ellipsis)).rstrip() + ellipsis
    return set_cell_size(text, max(width, 0))


def wrap(text: str, width: int, lines: int, ellipsis: str = "…") -> list[str]:
    """Clean text over at most so many lines, each of exactly so many cells."""
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
