"""Progress of fetching and loading a model: reported to the caller, not drawn by libraries."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, float, float | None], None]
"""Called with the stage's name, how much is done, and of how much (None: nobody knows)."""


def no_progress(stage: str, done: float, total: float | None) -> None:
    """Reports to nobody."""


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences transformers' own progress bars and advice: what matters we check and say."""
    from transformers.utils import logging

    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
