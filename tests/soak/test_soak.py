"""A short soak: the promises of the long one, `make soak`, but for what only time shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.run import Held, Report, soak


@pytest.mark.slow
async def test_a_short_soak_breaks_no_promise(tmp_path: Path) -> None:
    report = await soak(tmp_path, seconds=4, burst_facts=1)
    assert report.problems() == []
    assert len(report.seen.taught) > 32 + 256


def test_a_leak_and_lost_facts_are_noticed():
    report = Report(10.0)
    report.seen.ask_seconds, report.learned = [0.1], 3
    for process in report.held:
        report.held[process] = [Held(100 * 2**20, 20)] * 100
    assert report.problems() == []
    report.held["learner"] = [Held((100 + n) * 2**20, 20) for n in range(100)]
    report.held["server"] = [Held(100 * 2**20, 20 + n) for n in range(100)]
    report.seen.taught = {"f1"}
    report.seen.accepted = [set()]
    report.seen.versions = [[1, 3, 2]]
    assert report.problems() == [
        "1 facts were lost and 0 made up",
        "watcher 0 did not see 1 facts",
        "an answer came from older weights than the one before",
        "the server holds 60 files more",
        "the learner grew by 60 MiB",
    ]
