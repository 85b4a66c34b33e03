"""A learner that stands still (SIGSTOP) at any moment: it is replaced, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

from memory_store.vocabulary import EventKind
from tests.faults.findings import Findings
from tests.faults.real_servers import compare, facts_of
from tests.integration.servers import (
    ANY_ATTEMPTS,
    RunningServer,
    contents,
    is_alive,
    learners_of,
    running,
    until,
)

SILENT_SECONDS = 3.0
# Of a fact of the tiny model, about: it is stopped at any moment of it.
FACT_SECONDS = 1.0
# While it starts, its limit is longer.
NOTICED_SECONDS = 120.0


def _told(server: RunningServer) -> int:
    """How many hung learners there are in the events."""
    events = contents(server.data).events
    return sum(e.kind is EventKind.LEARNER_DOWN and "hung" in e.message for e in events)


def run(folder: Path, cases: int, seed: int) -> Findings:
    """So many learners of one memory that stop: each must be gone, and another one serve."""
    findings = Findings(kind="a hung learner (tiny model)", seed=seed)
    chance = random.Random(seed)
    facts = facts_of(seed, cases)
    options = ("--silent-seconds", str(SILENT_SECONDS), *ANY_ATTEMPTS)
    with running(folder / "killed", options=options) as server:
        client = server.client()
        for case in range(cases):
            for new in facts[2 * case : 2 * case + 2]:
                client.teach_fact(new)
            time.sleep(chance.uniform(0.0, FACT_SECONDS))
            [stopped] = until(lambda: learners_of(server.process.pid), "a learner")
            with contextlib.suppress(ProcessLookupError):
                os.kill(stopped, signal.SIGSTOP)
            try:
                until(lambda: not is_alive(stopped), "its end", NOTICED_SECONDS)  # noqa: B023
            except AssertionError:
                findings.diverge(f"case {case}: it was not noticed")
                os.kill(stopped, signal.SIGKILL)
            until(lambda: _told(server) > case, "its end in the events")  # noqa: B023
            server.wait_ready()
            findings.cases += 1
    compare(folder, facts, [], findings)
    return findings
