"""The report on a running service: what stands in its tables, and which pictures it has."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from eval.reports.service import (
    ServiceRecord,
    forgetting,
    lost,
    overview,
    service_page,
    service_pictures,
)
from memory_store.vocabulary import (
    Event,
    EventKind,
    FactRetention,
    FactState,
    Retention,
    RetentionPoint,
)
from tests.monitor.session import at, fact, learning

EMPTY = ServiceRecord(
    model="tiny",
    model_version=0,
    counts=dict.fromkeys(FactState, 0),
    facts=(),
    remembered=(),
    ages=(),
    events=(),
    leak_limit=0.3,
    drift_limit=0.25,
)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def remembered(number: int, *probabilities: float) -> FactRetention:
    points = tuple(
        RetentionPoint(model_version=1, probability=p, probed_at=at(0)) for p in probabilities
    )
    return FactRetention(fact_id=f"f{number}", age=number, points=points)


def record(**changed: Any) -> ServiceRecord:
    facts = [
        fact(number, learning=learning(model_version=number, leak=number / 10)) for number in (1, 2)
    ]
    retaught = Event(
        sequence=9, kind=EventKind.RETAUGHT, at=NOON, fact_id="f2", learning=learning()
    )
    fields: dict[str, Any] = {
        "model_version": 2,
        "counts": {**EMPTY.counts, FactState.LEARNED: 2},
        "facts": facts,
        "remembered": [remembered(1, 0.4, 0.9), remembered(2, 0.99)],
        "ages": [Retention(youngest=0, oldest=0, held=3, asked=4)],
        "events": [retaught],
    }
    return replace(EMPTY, **fields | changed)


def told(about: ServiceRecord) -> dict[str, str]:
    return {row[0]: row[1] for row in overview(about).rows}


def test_counts_stand_with_denominators() -> None:
    rows = told(record())
    assert rows["learned"] == "2"
    assert rows["held at the last probe"].startswith("50.0% (1 of 2;")
    assert rows["held when reviewed"].startswith("75.0% (3 of 4;")
    assert (rows["steps a fact: median"], rows["largest leak"]) == ("2", "0.2")
    assert told(EMPTY)["held at the last probe"] == "-"


def test_what_was_forgotten_and_what_is_lost_is_named() -> None:
    question = "What is the hottest month in Kyzara"
    assert forgetting(record()).rows == (("2026-01-01 12:00:00", f"{question} 2?", "0.01", "0.96"),)
    assert lost(record()).rows == ((f"{question} 1?", "Raincoat 1", "0.4", "1"),)
    unknown = record(facts=())  # too old to be told of
    assert (forgetting(unknown).rows[0][1], lost(unknown).rows[0][0]) == ("f2", "f1")


@pytest.mark.slow
def test_each_picture_is_drawn_where_there_is_something_to_draw() -> None:
    names = [picture.name for picture in service_pictures(record())]
    assert names == [
        *("learned.png", "retention.png", "probes.png", "rates.png", "leak.png", "drift.png")
    ]
    assert service_pictures(EMPTY) == []
    assert "What tiny was taught, at version 0" in service_page(EMPTY, {})
