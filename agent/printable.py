"""Text from outside, safe for a terminal and for a log: it moves no cursor and ends no line.

The memory keeps every text as it came; it is escaped where it is shown.
"""

from __future__ import annotations

import logging
from typing import Any


def escaped(text: str) -> str:
    """The text with what cannot be seen (control characters, bidi marks, ...) as in Python."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class PrintableFormatter(logging.Formatter):
    """A record is one line, whatever is told in it; only a traceback has lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, escaped."""
        record.message = escaped(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """The traceback, each of its lines escaped."""
        return "\n".join(map(escaped, super().formatException(ei).split("\n")))


def log_to_standard_error(form: str) -> None:
    """Sets up logging for this process.

    Args:
        form: of a line, as `logging.Formatter` takes it.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter(form))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
