"""What every test may rely on, however the tests were started."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """SIGINT is heeded here and in processes started here, also in the background.

    A shell starts what stands before `&` with SIGINT ignored, which Python leaves as it is and
    every child inherits.
    """
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
