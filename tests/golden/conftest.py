"""Says at the end of a run if no bits are recorded for this machine."""

from __future__ import annotations

from typing import Any

from tests.golden.golden_file import ONLY_RELATIONS
from tests.golden.recorder import fingerprint


def pytest_terminal_summary(terminalreporter: Any) -> None:
    names = [
        value
        for report in terminalreporter.getreports("passed")
        for key, value in report.user_properties
        if key == ONLY_RELATIONS
    ]
    if names:
        terminalreporter.section("golden digests")
        terminalreporter.line(f"none are recorded for {fingerprint()}")
        terminalreporter.line(f"so only relations were compared: {', '.join(sorted(names))}")
        terminalreporter.line(
            "to record them: python -m tests.golden, at a commit known to be good"
        )
