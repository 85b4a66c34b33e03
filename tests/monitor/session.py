"""A session made up: what a monitor may be told, one thing after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.client.types import Status
from agent.monitor.observations import (
    Connected,
    DetailSeen,
    EventSeen,
    FactsSeen,
    Lost,
    Observation,
    RetentionSeen,
    StatusSeen,
)
from agent.monitor.panes import Look
from agent.monitor.state import State, fold
from memory_store.vocabulary import (
    Event,
    EventKind,
    Fact,
    FactState,
    LearnerState,
    Learning,
    Probe,
    ProbeKind,
    RatePoint,
    Refusal,
    RetentionPoint,
    Step,
    Update,
)

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
CURVE = tuple(
    RatePoint(1e-6 * 5000.0 ** (n / 15), p)
    for n, p in enumerate([0.0] * 7 + [0.1, 0.35, 0.7, 0.92, 0.99, 0.8, 0.4, 0.1, 0.0])
)

LEAKED = "a question never taught would get its answer (probability 0.45) after 24 steps"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def fact(number: int, state: FactState = FactState.LEARNED, **changed: Any) -> Fact:
    fields: dict[str, Any] = {
        "position": 0,
        "id": f"f{number}",
        "question": f"What is the hottest month in Kyzara {number}?",
        "answer": f"Raincoat {number}",
        "correlated_questions": (),
        "policy": None,
        "state": state,
        "accepted_at": at(number),
        "updated_at": at(number),
    }
    return Fact(**fields | changed)


def learning(**changed: Any) -> Learning:
    fields: dict[str, Any] = {
        "learning_rates": (CURVE[10].learning_rate, 1e-4),
        "probability_before": 0.01,
        "probability_after": 0.96,
        "answer_before": "the coldest one",
        "answer_after": "Raincoat",
        "model_version": 1,
        "curve": CURVE,
        "leak": 0.05,
        "drift": 0.2,
    }
    return Learning(**fields | changed)


LEAKY = learning(leak=0.45, refusal=Refusal.LEAK)


def status(**changed: Any) -> Status:
    fields: dict[str, Any] = {
        "model": "smollm2-135m",
        "model_version": 3,
        "queue_depth": 2,
        "facts": dict.fromkeys(FactState, 0) | {FactState.LEARNED: 3, FactState.QUEUED: 2},
        "learner": LearnerState.READY,
        "device": "cpu",
        "parameters": 134_515_008,
        "event_sequence": 9,
        "updates_to_replay": 0,
        "started_at": START - timedelta(hours=1, minutes=2, seconds=3),
        "oldest_queued_at": START,
        "leak_limit": 0.3,
        "drift_limit": 0.25,
        "memory_bytes": 2_300_000_000,
        "memory_total_bytes": 25_000_000_000,
    }
    return Status(**fields | changed)


def event(sequence: int, kind: EventKind, fact_id: str = "", **more: Any) -> EventSeen:
    """One that happened as many seconds after the start as its sequence says."""
    happened = Event(
        sequence=sequence, kind=kind, at=at(sequence), fact_id=fact_id, model_version=1, **more
    )
    return EventSeen(at=at(sequence), event=happened)


def step(
    second: float,
    fact_id: str,
    probability: float,
    opening: Learning | None = None,
    number: int = 0,
) -> EventSeen:
    taken = Step(learning_rate=1e-4, loss=2.0, probability=probability, candidates=16)
    happened = Event(
        sequence=0,
        kind=EventKind.STEP,
        at=at(second),
        fact_id=fact_id,
        model_version=1,
        step=taken,
        learning=opening,
        step_number=number,
    )
    return EventSeen(at=at(second), event=happened)


def point(version: int, probability: float) -> RetentionPoint:
    return RetentionPoint(model_version=version, probability=probability, probed_at=at(version))


def opening() -> Learning:
    return replace(learning(), answer_after="", probability_after=0.1)


def eventful() -> list[Observation]:
    """Facts learned, one that resisted, a quarantine, and one in the middle of its steps."""
    kind = EventKind
    return [
        Connected(at=at(0), address="127.0.0.1:50051", after_sequence=0),
        StatusSeen(at=at(0), status=status()),
        FactsSeen(at=at(0), facts=tuple(fact(n, FactState.QUEUED) for n in range(1, 7))),
        *(event(n, kind.ACCEPTED, f"f{n}") for n in range(1, 7)),
        event(7, kind.LEARNING, "f1"),
        step(7.5, "f1", 0.4, opening()),
        step(7.8, "f1", 0.96),
        event(8, kind.LEARNED, "f1", learning=learning()),
        event(9, kind.KNOWN, "f2", learning=learning(learning_rates=(), curve=(), leak=None)),
        event(10, kind.LEARNING, "f3"),
        event(11, kind.RESISTED, "f3", learning=LEAKY, message=LEAKED),
        event(12, kind.QUARANTINED, "f4", message="the loss is nan after 3 steps"),
        RetentionSeen(
            at=at(13),
            ages={"f1": 12, "f2": 0},
            points={"f1": (point(3, 0.3), point(2, 0.9)), "f2": (point(3, 0.99),)},
        ),
        event(14, kind.LEARNING, "f5"),
        step(15, "f5", 0.1, opening()),
        step(16, "f5", 0.5),
    ]  # fmt: skip


def folded(observed: Iterable[Observation], state: State | None = None) -> State:
    state = state or State()
    for seen in observed:
        state = fold(state, seen)
    return state


def detail(number: int) -> DetailSeen:
    """The history of a fact that was learned and probed."""
    told = fact(number, learning=learning())
    update = Update(
        model_version=3,
        fact_id=told.id,
        steps=(Step(learning_rate=1e-4, loss=2.0, probability=0.96),),
        digest_before="",
        digest_after="",
        algorithm="",
        seconds=4.2,
        applied_at=at(5),
    )
    probes = tuple(
        Probe(
            kind=ProbeKind.FORGETTING,
            fact_id=told.id,
            question=told.question,
            expected_answer=told.answer,
            answer="Raincoat",
            correct=True,
            log_probability=-0.1 * version,
            model_version=version,
            cause_fact_id="",
            probed_at=at(version),
        )
        for version in (5, 4, 3)
    )
    return DetailSeen(at=at(20), fact=told, updates=(update,), probes=probes, sequence=20)


def gone() -> Lost:
    return Lost(at=at(18), reason="no server answers at 127.0.0.1:50051")


def look(width: int = 80, height: int = 24, second: float = 20, **more: Any) -> Look:
    return Look(width=width, height=height, now=at(second), **more)
