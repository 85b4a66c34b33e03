"""A sync that fails, of a commit or of a checkpoint: the process ends at once.

It acknowledges nothing more.
"""

from __future__ import annotations

import random
from pathlib import Path

from agent.server.app import DISK_FAILED_EXIT_CODE
from memory_store.store import MemoryStore
from tests.faults.findings import Findings, check_memory
from tests.faults.tracing import Call, Traced, trace_child

# Syncs before the first one that may fail: those of opening.
FIRST, LAST = 4, 60
# More than that many commits: a child that comes to its end noticed nothing.
FACTS = 200
# One task: with more, answers of the commit before may come after the failure, rightly.
TASKS = 1


def run(folder: Path, cases: int, seed: int) -> Findings:
    """So many children whose disk fails from some sync on, or once only.

    Half of them in a checkpoint.
    """
    findings = Findings(kind="failing sync", seed=seed)
    chance = random.Random(seed)
    in_checkpoints = 0
    undisturbed = trace_child(folder / "undisturbed", tasks=TASKS, facts=FACTS)
    of_checkpoints = [n for n in syncs_of_checkpoints(undisturbed.calls) if FIRST <= n < LAST]
    for number in range(cases):
        data = folder / f"case-{number}"
        first = chance.choice(of_checkpoints) if number % 2 else chance.randrange(FIRST, LAST)
        when = f"{first}{chance.choice(('', '+'))}"
        traced = trace_child(
            data, tasks=TASKS, facts=FACTS, inject=[f"fsync,fdatasync:error=EIO:when={when}"]
        )
        findings.cases += 1
        in_checkpoints += first in syncs_of_checkpoints(traced.calls)
        _require_end(traced, f"sync {when} failed", findings)
        facts = [line.split()[1] for line in traced.acknowledged if line.startswith("accepted")]
        with MemoryStore.open(data / "memory.db") as store:
            check_memory(store, facts, findings, f"sync {when}")
    findings.remarks.append(f"{in_checkpoints} of {cases} failed in a checkpoint")
    return findings


def _require_end(traced: Traced, what: str, findings: Findings) -> None:
    if traced.exit_code != DISK_FAILED_EXIT_CODE:
        findings.diverge(f"{what}, and the exit code is {traced.exit_code}")
    late = acknowledged_after_failure(traced.calls)
    if late:
        findings.diverge(f"{what}, and then it acknowledged {late[:3]}")


def syncs_of_checkpoints(calls: list[Call]) -> list[int]:
    """Which syncs, counted from 1, are of the database, or of a log that has nothing new."""
    numbers = []
    news: set[str] = set()
    syncs = 0
    for call in calls:
        if call.name == "pwrite64":
            news.add(call.path)
        elif call.name == "sync":
            syncs += 1
            if call.path.endswith(".db") or call.path not in news:
                numbers.append(syncs)
            news.discard(call.path)
    return numbers


def acknowledged_after_failure(calls: list[Call]) -> list[str]:
    """What was printed after the first sync that failed."""
    failed = next((i for i, call in enumerate(calls) if call.name == "sync" and call.failed), None)
    assert failed is not None, "no sync failed"
    return [
        call.content.decode()
        for call in calls[failed:]
        if call.name == "write" and call.content.startswith((b"accepted", b"learned"))
    ]
