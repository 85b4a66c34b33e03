"""The feed over a real connection: what it tells, and that it outlasts restarts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from agent.client.client import Client
from agent.monitor import feed as feed_module
from agent.monitor.feed import Feed, gather
from agent.monitor.observations import (
    Connected,
    DetailSeen,
    FactsSeen,
    Lost,
    Observation,
    Refused,
    RetentionSeen,
)
from agent.monitor.panes import Look
from agent.monitor.recording import Recorder, read
from agent.monitor.run import one_frame
from agent.monitor.state import State, fold
from agent.monitor.ui import Pause, ShowFact
from memory_store import undo
from memory_store.store import MemoryStore
from memory_store.vocabulary import Event, EventKind, FactState, Step
from tests.cli.conftest import InThread, in_thread
from tests.monitor.session import folded
from tests.store.builders import end_of_branch, new_fact, new_probe, teach_learned

PATIENCE_SECONDS = 30.0
Kind = TypeVar("Kind")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(feed_module, "RETENTION_SECONDS", 0.0)
    monkeypatch.setattr(feed_module, "QUIET_RETENTION_SECONDS", 0.0)
    monkeypatch.setattr(feed_module, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(feed_module, "LAST_RETRY_SECONDS", 0.1)


class Watched:
    """What a feed has told so far."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.state = State()
        self._changed = threading.Condition()

    def put(self, seen: Observation) -> None:
        with self._changed:
            self.seen.append(seen)
            self.state = fold(self.state, seen)
            self._changed.notify_all()

    def until(self, condition: Callable[[State], object]) -> State:
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._changed:
            while not condition(self.state):
                assert self._changed.wait(deadline - time.monotonic()), self.seen[-5:]
            return self.state

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [seen for seen in self.seen if isinstance(seen, kind)]


@contextmanager
def following(address: str) -> Iterator[tuple[Feed, Watched]]:
    watched = Watched()
    feed = Feed(partial(Client, address), address, watched.put)
    feed.start()
    try:
        yield feed, watched
    finally:
        feed.stop()
    assert not [t for t in threading.enumerate() if t.name == "monitor-events"]


def publish_step(server: InThread, fact_id: str) -> None:
    step = Step(learning_rate=1e-4, loss=1.0, probability=0.5)
    event = Event(sequence=0, kind=EventKind.STEP, at=datetime.now(UTC), fact_id=fact_id, step=step)
    server._loop.call_soon_threadsafe(server.parts.hub.publish, event)


def test_it_tells_what_is_there_and_what_happens(tmp_path: Path) -> None:
    with in_thread(tmp_path) as server:
        old = server.write(lambda store: teach_learned(store, "Old?"))
        with following(server.address) as (_, watched):
            state = watched.until(lambda s: s.ages and s.facts and len(s.events) == 3)
            assert state.connected
            assert state.status is not None
            assert state.facts[old.id].question == "Old?"
            new = server.write(lambda store: teach_learned(store, "New?"))
            watched.until(lambda s: new.id in s.facts and new.id in s.ages)
            server.write(lambda store: store.record_probes([new_probe(old.id)], 2))
            watched.until(lambda s: len(s.points[old.id]) == 1)
            publish_step(server, new.id)
            state = watched.until(lambda s: s.attempt and s.attempt.steps)
            assert [e.kind.value for e in state.events] == ["accepted", "learning", "learned"] * 2
        told = [f.id for seen in watched.of(FactsSeen) for f in seen.facts]
        assert sorted(told) == sorted([old.id, new.id])  # each once


def roll_back(store: MemoryStore, to_version: int) -> None:
    operation = undo.request_rollback(store, to_version)
    undo.begin_operation(store, operation.id)
    undo.finish_rollback(store, operation.id, end_of_branch(to_version), {})


def test_a_rollback_changes_the_facts_that_it_undoes(tmp_path: Path) -> None:
    with in_thread(tmp_path) as server:
        kept = server.write(lambda store: teach_learned(store, "Old?"))
        undone = server.write(lambda store: teach_learned(store, "New?"))
        server.write(lambda store: store.record_probes([new_probe(kept.id)], 2))
        with following(server.address) as (feed, watched):
            watched.until(lambda s: undone.id in s.facts and s.points.get(kept.id))
            feed.request(ShowFact(undone.id))
            watched.until(lambda s: s.detail)
            server.write(lambda store: roll_back(store, 1))
            state = watched.until(
                lambda s: (
                    s.facts[undone.id].state is FactState.FORGOTTEN
                    and undone.id not in s.ages
                    and s.detail
                    and s.detail.fact.state is FactState.FORGOTTEN
                )
            )
            assert state.facts[kept.id].state is FactState.LEARNED
            watched.until(lambda s: s.points[kept.id] == ())  # it was of other weights


def test_a_rollback_while_nobody_was_connected_is_seen_too(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = ExitStack()
        server = first.enter_context(in_thread(tmp_path))
        address = server.address
        fact = server.write(lambda store: teach_learned(store, "Old?"))
        _, watched = stack.enter_context(following(address))
        watched.until(lambda s: s.ages and fact.id in s.facts)
        first.close()
        watched.until(lambda s: s.connected is False)
        again = stack.enter_context(in_thread(tmp_path, listen=address))
        again.write(lambda store: roll_back(store, 0))
        watched.until(lambda s: s.facts[fact.id].state is FactState.FORGOTTEN and not s.ages)


def test_what_has_not_changed_is_not_told_again(tmp_path: Path) -> None:
    with in_thread(tmp_path) as server:
        server.write(lambda store: teach_learned(store, "Old?"))
        with following(server.address) as (_, watched):
            watched.until(lambda s: s.ages)
            time.sleep(0.3)  # many looks
            # What the reviews of the first second may still bring is over by now.
            assert len(watched.of(RetentionSeen)) == 1
            assert len(watched.seen) < 12


def test_a_restart_is_told_and_outlasted(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = ExitStack()
        server = first.enter_context(in_thread(tmp_path))
        address = server.address
        fact = server.write(lambda store: teach_learned(store, "Old?"))
        _, watched = stack.enter_context(following(address))
        before = watched.until(lambda s: s.ages and fact.id in s.facts and len(s.events) == 3)
        first.close()
        lost = watched.until(lambda s: s.connected is False)
        assert lost.lost is not None
        assert (lost.facts, lost.events) == (before.facts, before.events)
        again = stack.enter_context(in_thread(tmp_path, listen=address))
        state = watched.until(lambda s: s.connected)
        assert (state.connections, state.events) == (2, before.events)
        new = again.write(lambda store: teach_learned(store, "New?"))
        state = watched.until(
            lambda s: new.id in s.facts and new.id in s.ages and len(s.events) >= 6
        )
        assert [e.kind.value for e in state.events] == ["accepted", "learning", "learned"] * 2
        assert len(watched.of(Connected)) == 2
        assert 1 <= len(watched.of(Lost)) <= 3  # not at every try


def test_a_server_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    with in_thread(tmp_path) as server:
        address = server.address
    with following(address) as (_, watched):
        state = watched.until(lambda s: s.connected is False)
        assert state.lost is not None
        assert "no server answers" in state.lost.reason
        with in_thread(tmp_path, listen=address):
            assert watched.until(lambda s: s.connected).connections == 1


def test_wishes_are_granted_and_refusals_told(tmp_path: Path) -> None:
    with in_thread(tmp_path) as server:
        fact = server.write(lambda store: teach_learned(store, "Old?"))
        with following(server.address) as (feed, watched):
            watched.until(lambda s: s.status)
            feed.request(Pause(True))
            watched.until(lambda s: s.status and s.status.learning_paused)
            feed.request(Pause(False))
            watched.until(lambda s: s.status and not s.status.learning_paused)
            feed.request(ShowFact(fact.id))
            detail = watched.until(lambda s: s.detail).detail
            assert isinstance(detail, DetailSeen)
            assert (detail.fact.id, len(detail.updates)) == (fact.id, 1)
            feed.request(ShowFact("nobody"))
            watched.until(lambda s: s.refused)
            assert "nobody" in watched.of(Refused)[0].reason


def test_the_memory_of_another_server_at_the_same_address_begins_anew(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with ExitStack() as stack:
        first = ExitStack()
        server = first.enter_context(in_thread(tmp_path / "a"))
        server.write(lambda store: [teach_learned(store, f"Old {n}?") for n in range(3)])
        _, watched = stack.enter_context(following(server.address))
        watched.until(lambda s: len(s.ages) == 3)
        first.close()
        other = stack.enter_context(in_thread(tmp_path / "b", listen=server.address))
        fact = other.write(lambda store: teach_learned(store, "Other?"))
        state = watched.until(lambda s: s.connected and list(s.ages) == [fact.id])
        assert list(state.facts) == [fact.id]


def test_one_frame_gathers_the_same(tmp_path: Path) -> None:
    with in_thread(tmp_path) as server:
        fact = server.write(lambda store: teach_learned(store, "Old?"))
        server.write(lambda store: store.teach(new_fact("New?")))
        with Client(server.address) as client:
            state = folded(gather(client))
            assert folded(gather(client)).events == state.events
        with following(server.address) as (_, watched):
            live = watched.until(lambda s: s.ages and len(s.facts) == 2 and len(s.events) == 4)
        assert (state.facts, state.events, state.ages) == (live.facts, live.events, live.ages)
        assert state.ages == {fact.id: 0}


async def test_a_live_session_that_was_recorded_ends_in_the_same_frame(tmp_path: Path) -> None:
    def session() -> tuple[State, list[Observation]]:
        with in_thread(tmp_path) as server, following(server.address) as (feed, watched):
            watched.until(lambda s: s.status)
            fact = server.write(lambda store: teach_learned(store, "Sky?", "\x1b[2J宽"))
            publish_step(server, fact.id)
            feed.request(ShowFact(fact.id))
            watched.until(lambda s: s.detail and s.ages and s.attempt and s.attempt.steps)
        return watched.state, watched.seen

    state, seen = await asyncio.to_thread(session)
    path = tmp_path / "session.jsonl"
    with Recorder(path) as recorder:
        for one in seen:
            recorder.write(one)
    look = Look(width=80, height=24, now=seen[-1].at)
    replayed, drawn = one_frame(list(read(path)), look)
    assert replayed == state
    assert drawn == one_frame(seen, look)[1]
    assert replace(replayed) == replayed
