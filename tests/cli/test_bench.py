"""`agent bench`: one JSON object, and an exit code that tells whether the floors are reached."""

from __future__ import annotations

import pytest

from eval.benchmarks import Figure
from tests.cli.conftest import Agent


def figure(ratio: float) -> Figure:
    return Figure(
        name="Teach beside Ping",
        ours=100.0 * ratio,
        baseline=100.0,
        unit="calls/s",
        ratio=ratio,
        floor=0.75,
        device="here",
    )


@pytest.mark.parametrize(("ratio", "code"), [(0.9, 0), (0.5, 1)])
def test_the_figures_and_whether_they_are_reached(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, ratio: float, code: int
) -> None:
    asked: list[tuple[object, ...]] = []

    def measured(say, *rest: object) -> list[Figure]:
        say("one")
        asked.append(rest)
        return [figure(ratio)]

    monkeypatch.setattr("eval.benchmarks.enqueue.enqueueing", measured)
    monkeypatch.setattr("eval.benchmarks.ask.asking", lambda: [figure(ratio)])
    ran = agent("bench", "enqueue", "--facts", "2000", "--rounds", "3", "--calls", "7", "--json")
    assert ran.code == code
    assert ran.json == {"benchmarks": [figure(ratio).json()]}
    assert asked == [(None, 2000, 3, 7)]
    ran = agent("bench", "all")
    assert ran.code == code
    assert ran.out.count("Teach beside Ping") == 2
    assert "one" in ran.err


def test_an_unknown_benchmark_is_refused(agent: Agent) -> None:
    ran = agent("bench", "walking")
    assert ran.code == 1
    assert "use one of enqueue, ask, all" in ran.err


def test_the_benchmarks_are_listed(agent: Agent) -> None:
    ran = agent("bench", "--list")
    assert ran.code == 0
    assert "enqueue" in ran.out
    assert agent("bench").code == 2
