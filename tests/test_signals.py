"""The tests pass in the background too, where a shell has SIGINT and SIGHUP ignored."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest


def test_an_interrupt_is_heeded_here_and_in_children() -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    asked = "import signal; raise SystemExit(signal.getsignal(2) is signal.default_int_handler)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 1


@pytest.mark.slow
def test_it_is_heeded_where_the_tests_were_started_with_it_ignored() -> None:
    inner = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.SIG_IGN)  # as `nohup make test &` does; children inherit it
    try:
        ran = subprocess.run(
            [*inner, f"{__file__}::test_an_interrupt_is_heeded_here_and_in_children"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ran.returncode == 0, ran.stdout
