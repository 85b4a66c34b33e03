"""kill -9 of the real server or learner at named points, against one that was left alone.

Points are what can be seen from outside: events, the database, the folder of an unfinished
snapshot, processes, the status. A kill comes as soon as its point is seen.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from agent.client.client import Client
from agent.client.types import OPERATION_ENDS, SETTLED
from agent.config import DATABASE, SNAPSHOTS
from agent.errors import AgentError
from agent.snapshots import UNFINISHED
from memory_store.store import MemoryStore
from memory_store.vocabulary import Event, EventKind, FactState, NewFact
from tests.faults.findings import Findings
from tests.faults.real_servers import compare, facts_of, kill
from tests.integration.servers import (
    ANY_ATTEMPTS,
    PATIENCE_SECONDS,
    RunningServer,
    learners_of,
    running,
)

POLL_SECONDS = 0.0005  # some points pass in milliseconds
LEARNED_AGAIN = 2  # facts after the one that is forgotten
# A point takes a fact, and another if that one goes an unusual way.
FACTS_A_CASE = 4


@dataclass(slots=True)
class Memory:
    """One memory, over all lives of its server."""

    folder: Path
    facts: Iterator[NewFact]
    taught: list[NewFact] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)


class Scene:
    """One life of its server, and what is done to reach a point."""

    def __init__(self, memory: Memory, server: RunningServer) -> None:
        self.memory = memory
        self.server = server
        self.client = server.client()

    def settle(self) -> None:
        """Waits until nothing is left to do."""
        for fact_id in self.memory.forgotten:
            operation = self.client.forgetting(fact_id)
            assert operation is not None
            self.client.wait_operation(operation.id)
        self.client.wait(new.fact_id or "" for new in self.memory.taught)
        self.server.wait_ready()

    def teach(self) -> str:
        new = next(self.memory.facts)
        self.memory.taught.append(new)
        return self.client.teach_fact(new).fact.id

    def forget(self) -> str:
        """Has a fact forgotten after which others were learned."""
        while len(learned := list(self.client.facts([FactState.LEARNED]))) <= LEARNED_AGAIN:
            self.client.wait([self.teach()])
        fact_id = learned[-1 - LEARNED_AGAIN].id
        self.client.forget(fact_id)
        self.memory.forgotten.append(fact_id)
        return fact_id

    def watching(self) -> Iterator[Event]:
        """Events from now on."""
        events = self.client.watch(self.client.status().event_sequence - 1)
        next(events)  # the newest one: the stream is there
        return events

    def learners(self) -> set[int]:
        return set(learners_of(self.server.process.pid))

    def kill_learners(self) -> set[int]:
        learners = self.learners()
        for pid in learners:
            os.kill(pid, signal.SIGKILL)
        return learners


def soon(condition: Callable[[], Any]) -> Any:
    """As `until`, but misses little."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, "the point was not reached"
        time.sleep(POLL_SECONDS)
    return result


def see_taught(scene: Scene, kind: EventKind) -> None:
    """An event of a fact that was just handed in."""
    seen = False
    while not seen:
        events = scene.watching()
        fact_id = scene.teach()
        for event in events:
            seen = event.fact_id == fact_id and event.kind is kind
            if seen or (event.fact_id == fact_id and event.kind.value in SETTLED):
                break


def see_forgotten(scene: Scene, kind: EventKind, beginning: str = "") -> None:
    """An event of a forgetting."""
    seen = False
    while not seen:
        events = scene.watching()
        scene.forget()
        for event in events:
            seen = event.kind is kind and event.message.startswith(beginning)
            if seen or event.kind in OPERATION_ENDS:
                break


def see_row(scene: Scene) -> None:
    """A row of the ledger in the database, before the server itself is told of its commit."""
    with MemoryStore.open(scene.memory.folder / DATABASE, read_only=True) as store:

        def settled(fact_id: str) -> FactState | None:
            state = store.fact(fact_id).state
            return state if state in SETTLED else None

        state = None
        while state is not FactState.LEARNED:
            state = soon(partial(settled, scene.teach()))


def see_unfinished_snapshot(scene: Scene) -> None:
    """A snapshot that is being written; others are asked for until one is seen."""
    scene.client.wait([scene.teach()])
    seen = threading.Event()

    def ask() -> None:
        with Client(scene.server.address) as client, contextlib.suppress(AgentError):
            while not seen.is_set():
                client.create_snapshot()

    threading.Thread(target=ask, daemon=True).start()
    folder = scene.memory.folder / SNAPSHOTS
    soon(lambda: folder.exists() and any(folder.glob(f"{UNFINISHED}*")))
    seen.set()


def see_new_learner(scene: Scene) -> None:
    """The process of a learner that takes the place of a dead one."""
    dead = scene.kill_learners()
    soon(lambda: scene.learners() - dead)


def see_recovery(scene: Scene) -> None:
    """A learner that is being brought to the head of the ledger."""
    state = "ready"
    while state != "recovering":
        scene.kill_learners()
        soon(lambda: scene.client.status().learner != "ready")
        state = soon(
            lambda: (now := scene.client.status().learner) in ("recovering", "ready") and now
        )


POINTS: dict[str, Callable[[Scene], None]] = {
    "accepted": partial(see_taught, kind=EventKind.ACCEPTED),
    "learning begins": partial(see_taught, kind=EventKind.LEARNING),
    "a step is done": partial(see_taught, kind=EventKind.STEP),
    "the ledger row is committed": see_row,
    "learned": partial(see_taught, kind=EventKind.LEARNED),
    "a snapshot is being written": see_unfinished_snapshot,
    "a forgetting begins": partial(see_forgotten, kind=EventKind.REBUILDING),
    "facts are learned again": partial(
        see_forgotten, kind=EventKind.REBUILDING, beginning="learning again"
    ),
    "forgotten": partial(see_forgotten, kind=EventKind.FORGOTTEN),
    "a learner starts": see_new_learner,
    "a learner recovers": see_recovery,
}
CASES = tuple((point, victim) for point in POINTS for victim in ("server", "learner"))


def run(folder: Path, cases: int, seed: int) -> Findings:
    """So many kills of one memory, at each point of the server and of the learner in turn."""
    findings = Findings(kind="kill -9 of server and learner at points (tiny model)", seed=seed)
    chance = random.Random(seed)
    memory = Memory(folder / "killed", iter(facts_of(seed, cases * FACTS_A_CASE)))
    deck: list[tuple[str, str]] = []
    while findings.cases < cases:
        with running(memory.folder, options=ANY_ATTEMPTS) as server:
            scene = Scene(memory, server)
            victim = ""
            while victim != "server" and findings.cases < cases:
                deck = deck or chance.sample(CASES, len(CASES))
                point, victim = deck.pop()
                scene.settle()
                POINTS[point](scene)
                kill(server, victim == "learner", chance)
                findings.cases += 1
                findings.points[f"{point}: {victim}"] += 1
    compare(folder, memory.taught, memory.forgotten, findings)
    return findings
