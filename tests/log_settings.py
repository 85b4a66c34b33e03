"""The settings of logging, which `agent serve` changes for its whole process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_settings_kept() -> Iterator[None]:
    """Puts back handlers and level: a handler left here writes to a stream that pytest closes."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
