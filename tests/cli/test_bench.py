"""`agent bench`: one JSON object, and an exit code that says whether the floors are reached."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from eval.bench.figure import Figure, WrongResultError, compare
from eval.bench.model_benchmarks import MEASURES
from eval.bench.run import OF_A_MODEL
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

    monkeypatch.setattr("eval.bench.enqueue.measure_enqueue", measured)
    monkeypatch.setattr("eval.bench.ask.measure_ask", lambda: [figure(ratio)])
    ran = agent("bench", "enqueue", "--facts", "2000", "--rounds", "3", "--calls", "7", "--json")
    assert ran.code == code
    assert ran.json == {"benchmarks": [figure(ratio).json()]}
    assert asked == [(None, 2000, 3, 7)]
    models: list[tuple[object, ...]] = []

    def of_a_model(say, *rest: object) -> list[Figure]:
        models.append(rest)
        return [
            compare(
                "update",
                ours=2.0,
                baseline=8.0,
                unit="ms",
                floor=1.0,
                device="a GPU",
                device_limit=True,
            )
        ]

    monkeypatch.setattr("eval.bench.model_benchmarks.measure_model", of_a_model)
    ran = agent("bench", "all", "--model", "tiny", "--device", "cpu", "--seconds", "3")
    assert ran.code == code
    assert ran.out.count("Teach beside Ping") == 2
    assert "one" in ran.err
    assert asked[1:] == [(None, 200_000, 9, 500)]
    assert models == [(["update", "rates", "sample", "teach"], "tiny", None, "cpu", 3.0)]
    assert " ms " in ran.out
    assert "50%" in ran.out  # of the floor
    assert "a GPU" in ran.out


def test_one_benchmark_of_a_model_is_asked_for(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def of_a_model(say, *rest: object) -> list[Figure]:
        asked.append(rest)
        if len(asked) > 1:
            raise WrongResultError("an update is wrong: it goes elsewhere")
        return [
            compare(
                "sample",
                ours=2.0,
                baseline=8.0,
                unit="t/s",
                floor=9.0,
                device="here",
                device_limit=True,
            )
        ]

    monkeypatch.setattr("eval.bench.model_benchmarks.measure_model", of_a_model)
    ran = agent("bench", "sample", "--shape", "pythia-410m", "--json")
    assert ran.code == 0  # slower than the baseline, but that is no floor
    fields = {"name", "ours", "baseline", "unit", "ratio", "floor", "device"}
    assert ran.json["benchmarks"][0].keys() == fields
    assert ran.json["benchmarks"][0]["floor"] == 9.0
    assert asked == [(["sample"], "smollm2-135m", "pythia-410m", "auto", 20.0)]
    ran = agent("bench", "sample")
    assert ran.code == 1
    assert "an update is wrong: it goes elsewhere" in ran.err


def test_what_was_measured_before_a_wrong_result_is_told(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_a_model(say, *rest: object) -> Iterator[Figure]:
        yield figure(0.9)
        raise WrongResultError("an update is wrong: it goes elsewhere")

    monkeypatch.setattr("eval.bench.model_benchmarks.measure_model", of_a_model)
    ran = agent("bench", "update", "--json")
    assert ran.code == 1
    assert ran.json == {"benchmarks": [figure(0.9).json()]}
    assert "an update is wrong: it goes elsewhere" in ran.err


def test_what_was_measured_before_it_was_ended_is_told(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_a_model(say, *rest: object) -> Iterator[Figure]:
        yield figure(0.9)
        signal.raise_signal(signal.SIGTERM)
        yield figure(0.8)

    monkeypatch.setattr("eval.bench.model_benchmarks.measure_model", of_a_model)
    before = signal.getsignal(signal.SIGTERM)
    ran = agent("bench", "update", "--json")
    assert ran.code == 130
    assert ran.json == {"benchmarks": [figure(0.9).json()]}
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_unknown_benchmark_is_refused(agent: Agent) -> None:
    ran = agent("bench", "walking")
    assert ran.code == 1
    assert "use one of enqueue, ask, operations, update, rates, sample, teach, all" in ran.err


def test_the_benchmarks_are_listed(agent: Agent) -> None:
    ran = agent("bench", "--list")
    assert ran.code == 0
    assert "enqueue" in ran.out
    assert "half a minute" in ran.out
    assert tuple(MEASURES) == OF_A_MODEL
    assert agent("bench").code == 2


def test_operations_has_a_memory_of_its_own_size(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def measured(say, *rest: object) -> Iterator[Figure]:
        asked.append(rest)
        yield figure(0.9)

    monkeypatch.setattr("eval.bench.operations.measure_operations", measured)
    assert agent("bench", "operations", "--json").json == {"benchmarks": [figure(0.9).json()]}
    agent("bench", "operations", "--facts", "2000")
    assert asked == [(None, 100_000), (None, 2000)]
