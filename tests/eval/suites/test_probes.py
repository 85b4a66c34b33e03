"""Suite `probes`: what a server's answers add up to."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.client.client import Client
from eval.metrics import wilson_interval
from eval.suites.probes import ProbeReport, probe_server
from memory_store.vocabulary import Probe, ProbeKind


def made(kind: ProbeKind, fact_id: str, correct: bool, probability: float, version=7) -> Probe:
    return Probe(
        kind=kind,
        fact_id=fact_id,
        question=f"{fact_id}?",
        expected_answer="right",
        answer="right" if correct else "wrong",
        correct=correct,
        log_probability=math.log(probability),
        model_version=version,
        cause_fact_id="",
        probed_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


RETENTION, TRANSFER = ProbeKind.RETENTION, ProbeKind.TRANSFER
PROBES = [
    made(RETENTION, "a", True, 0.9),
    made(TRANSFER, "a", False, 0.1),
    made(TRANSFER, "a", True, 0.5),
    made(RETENTION, "b", False, 0.3, version=8),
    made(RETENTION, "c", True, 0.6, version=8),
]


class FakeClient:
    """A server's client that holds these probes, of facts `a` to `c`."""

    def __init__(self, probes: list[Probe]) -> None:
        self._probes = probes

    def probe(self) -> Iterator[tuple[Probe, int, int]]:
        facts = sorted({probe.fact_id for probe in self._probes})
        for probe in self._probes:
            yield probe, facts.index(probe.fact_id) + 1, len(facts)

    def status(self) -> Any:
        return SimpleNamespace(model="tiny")


def report(probes: list[Probe]) -> ProbeReport:
    return probe_server(cast(Client, FakeClient(probes)), lambda done, total: None)


def test_each_kind_is_counted_with_its_denominator_interval_and_mean_probability():
    answers = report(PROBES).answers
    retention, transfer = answers["retention"], answers["transfer"]
    assert (retention.correct.count, retention.correct.total) == (2, 3)
    assert retention.correct.interval == wilson_interval(2, 3)
    assert retention.mean_probability == pytest.approx((0.9 + 0.3 + 0.6) / 3)
    assert (transfer.correct.count, transfer.correct.total) == (1, 2)
    assert transfer.correct.interval == wilson_interval(1, 2)
    assert transfer.mean_probability == pytest.approx(0.3)


def test_the_report_names_the_model_and_every_version_that_was_asked():
    made = report(PROBES)
    assert (made.model, made.model_versions) == ("tiny", (7, 8))
    assert made.probes == tuple(PROBES)


def test_missed_are_the_wrong_retention_probes_alone():
    assert report(PROBES).missed == [PROBES[3]]


def test_progress_is_told_for_every_probe():
    seen: list[tuple[int, int]] = []
    probe_server(cast(Client, FakeClient(PROBES)), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (1, 3), (1, 3), (2, 3), (3, 3)]


def test_the_json_has_its_stable_fields():
    written = json.loads(json.dumps(report(PROBES).as_json(), allow_nan=False))
    assert list(written) == [
        *("suite", "model", "model_versions", "sampling"),
        *("retention", "transfer", "probes"),
    ]
    assert (written["suite"], written["model"]) == ("probes", "tiny")
    assert written["model_versions"] == [7, 8]
    low, high = wilson_interval(1, 2)
    assert written["transfer"] == {
        "correct": 1,
        "total": 2,
        "rate": 0.5,
        "interval_95": [low, high],
        "mean_probability": pytest.approx(0.3),
    }
    assert written["probes"][3] == {
        "kind": "retention",
        "fact_id": "b",
        "question": "b?",
        "expected_answer": "right",
        "answer": "wrong",
        "correct": False,
        "log_probability": math.log(0.3),
        "model_version": 8,
    }


def test_a_server_without_facts_gives_valid_json_without_rates():
    written = json.loads(json.dumps(report([]).as_json(), allow_nan=False))
    nothing = {
        "correct": 0,
        "total": 0,
        "rate": None,
        "interval_95": [0.0, 1.0],
        "mean_probability": None,
    }
    assert (written["retention"], written["transfer"]) == (nothing, nothing)
    assert (written["model_versions"], written["probes"]) == ([], [])
