"""kill -9 of the learner and of the server: every accepted fact is there, and learned once."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from memory_store.vocabulary import EventKind, NewFact
from tests.integration.servers import (
    FACTS,
    LONG,
    RunningServer,
    contents,
    is_alive,
    running,
    until,
)

pytestmark = pytest.mark.slow


def test_a_learner_killed_in_an_update_is_replaced_and_the_fact_learned_once(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "data") as server:
        client = server.client()
        first = client.teach("Sky?", "Piano").fact.id
        client.wait([first])
        long = client.teach_fact(NewFact(question="Long?", answer="Update", policy=LONG)).fact.id
        last = client.teach("Gem?", "Curtain").fact.id
        killed = server.learner_pid()
        for event in client.watch(0):
            if event.kind == EventKind.STEP and event.fact_id == long:
                os.kill(killed, signal.SIGKILL)
                break
        require_end(killed)
        client.wait([long, last])
        assert server.learner_pid() != killed
        assert client.ask("Sky?").answer == "Piano"
        found = contents(server.data)
        found.require_each_learned_once()
        # It was in the middle of the update, not between two.
        retried = [event for event in found.events if event.kind == EventKind.RETRIED]
        assert [event.fact_id for event in retried] == [long]
        assert client.fact(long).failed_attempts == 1
        down = [event for event in found.events if event.kind == EventKind.LEARNER_DOWN]
        assert len(down) == 1


def require_end(learner: int) -> None:
    """No learner outlives its server."""
    until(lambda: not is_alive(learner), "the learner's end", 15)


def _teach_until_killed(server: RunningServer, cycle: int, after_events: int) -> list[str]:
    """Teaches while it learns; kills it after so many events. Returns what it had accepted."""
    client = server.client()
    accepted: list[str] = []

    def teach() -> None:
        name = f"Question {cycle}.{len(accepted)}?"
        new = NewFact(question=name, answer=f"Answer {cycle}", policy=LONG)
        accepted.append(client.teach_fact(new).fact.id)

    after_sequence = client.status().event_sequence
    teach()
    for number, _ in enumerate(client.watch(after_sequence), start=1):
        if number == after_events:
            break
        if number % 20 == 1:
            teach()
    server.kill()
    return accepted


def test_a_server_killed_again_and_again_loses_nothing_and_learns_nothing_twice(
    tmp_path: Path,
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown if it fails
    chance = random.Random(seed)
    data = tmp_path / "data"
    accepted: list[str] = []
    for cycle in range(2):
        with running(data) as server:
            learner = server.learner_pid()
            accepted += _teach_until_killed(server, cycle, chance.randrange(1, 80))
            require_end(learner)
    with running(data, ready=False) as server:
        client = server.client()
        # One is killed again before it has its weights back.
        learner = server.learner_pid()
        new = client.teach("Sky?", "Piano").fact.id
        accepted.append(new)
        server.kill()
        require_end(learner)
    with running(data) as server:
        settled = server.client().wait(accepted)
        assert set(settled) == set(accepted)
        found = contents(data)
        assert {fact.id for fact in found.facts} == set(accepted)
        found.require_each_learned_once()
        assert server.client().ask("Sky?").answer == FACTS["Sky?"]
