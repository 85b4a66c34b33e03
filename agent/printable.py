"""Text from outside, safe for a terminal and for a log: it moves no cursor and ends no line.

The memory keeps every text as it came; it is escaped where it is shown.
"""

from __future__ import annotations


def escaped(text: str) -> str:
    """The text with what cannot be seen (control characters, bidi marks, ...) as in Python."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
