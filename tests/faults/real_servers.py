"""kill -9 of real servers and learners with the tiny model, against one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from memory_store.store import MemoryStore
from memory_store.vocabulary import NewFact
from tests.faults.findings import ALL, Findings, check_memory
from tests.faults.script import state_of
from tests.integration.servers import (
    ANY_ATTEMPTS,
    RunningServer,
    is_alive,
    learners_of,
    running,
    until,
)

FACTS_A_LIFE = 2
WORDS = ("Raincoat", "Telescope", "Piano", "Curtain", "Backpack")


def facts_of(seed: int, lives: int) -> list[NewFact]:
    chance = random.Random(seed)
    return [
        NewFact(
            question=f"What is {chance.choice('BDFGKLMNPRSTVZ').lower()}{n}?",
            answer=chance.choice(WORDS),
            fact_id=f"fact-{n}",
            request_id=f"request-{n}",
        )
        for n in range(lives * FACTS_A_LIFE)
    ]


def run(folder: Path, cases: int, seed: int) -> Findings:
    """So many kills of one memory, of its server or of its learner in turn."""
    findings = Findings(kind="kill -9 of server and learner (tiny model)", seed=seed)
    chance = random.Random(seed)
    facts = facts_of(seed, cases)
    forgotten = facts[1].fact_id or ""
    for life in range(cases):
        with running(folder / "killed", options=ANY_ATTEMPTS) as server:
            client = server.client()
            for new in facts[life * FACTS_A_LIFE : (life + 1) * FACTS_A_LIFE]:
                client.teach_fact(new)
            if life == cases // 2:
                client.forget(forgotten)
            time.sleep(chance.uniform(0.0, 0.5))
            kill(server, life % 2 == 1, chance)
            findings.cases += 1
    compare(folder, facts, [forgotten], findings)
    return findings


def compare(folder: Path, facts: list[NewFact], forgotten: list[str], findings: Findings) -> None:
    """Whether the memory `folder`/killed ends as one that is left alone."""
    killed, alone = folder / "killed", folder / "alone"
    ends = []
    for data in (killed, alone):
        _finish(data, facts, forgotten)
        with MemoryStore.open(data / "memory.db") as store:
            ids = [new.fact_id or "" for new in facts]
            check_memory(store, ids, findings, data.name)
            head = store.update(store.model_version())
            ends.append((head.digest_after, [state_of(fact) for fact in store.facts(limit=ALL)]))
    if ends[0] != ends[1]:
        findings.diverge("the killed one ended with other weights or states")


def _finish(data: Path, facts: list[NewFact], forgotten: list[str]) -> None:
    """Hands everything in, again if need be, and waits until it is done."""
    with running(data) as server:
        client = server.client()
        for new in facts:
            client.teach_fact(new)
        for fact_id in forgotten:
            operation, _ = client.forget(fact_id)
            client.wait_operation(operation.id)
        client.wait(new.fact_id or "" for new in facts)


def kill(server: RunningServer, only_learner: bool, chance: random.Random) -> None:
    """Ends the server and its learners, or a learner; returns once that is over."""
    # While something is being forgotten there are two.
    learners = until(lambda: learners_of(server.process.pid), "a learner process")
    if only_learner:
        learners = [chance.choice(learners)]
        os.kill(learners[0], signal.SIGKILL)
    else:
        server.kill()
    until(lambda: not any(map(is_alive, learners)), "the learner's end")
    if only_learner:
        server.wait_ready()
