"""A sync that fails: the process ends at once, and acknowledges nothing more.

Except if the only sync that fails is one of a checkpoint. SQLite keeps that to itself and repeats
the checkpoint later; until then everything is in the write-ahead log too, which was synced.
"""

from __future__ import annotations

import random
from pathlib import Path

from agent.app import DISK_FAILED_EXIT_CODE
from memory_store.store import MemoryStore
from tests.faults.findings import Findings, check_memory
from tests.faults.tracing import Call, Traced, trace_child

# Syncs before the first one that may fail: those of opening.
FIRST, LAST = 4, 60
# More than that many commits: a child that comes to its end noticed nothing.
FACTS = 200


def run(folder: Path, cases: int, seed: int) -> Findings:
    """So many children whose disk fails from some sync on, or once only."""
    findings = Findings(kind="failing sync", seed=seed)
    chance = random.Random(seed)
    in_checkpoints = 0
    for number in range(cases):
        data = folder / f"case-{number}"
        when = f"{chance.randrange(FIRST, LAST)}{chance.choice(('', '+'))}"
        # One task: with more, answers of the commit before may come after the failure, rightly.
        traced = trace_child(
            data, tasks=1, facts=FACTS, inject=[f"fsync,fdatasync:error=EIO:when={when}"]
        )
        findings.cases += 1
        if not when.endswith("+") and fails_in_checkpoint(traced.calls):
            in_checkpoints += 1
        else:
            _require_end(traced, f"sync {when} failed", findings)
        facts = [line.split()[1] for line in traced.acknowledged if line.startswith("accepted")]
        with MemoryStore.open(data / "memory.db") as store:
            check_memory(store, facts, findings, f"sync {when}")
    findings.remarks.append(f"{in_checkpoints} failed once, in a checkpoint, which was repeated")
    return findings


def _require_end(traced: Traced, what: str, findings: Findings) -> None:
    if traced.exit_code != DISK_FAILED_EXIT_CODE:
        findings.diverge(f"{what}, and the exit code is {traced.exit_code}")
    late = acknowledged_after_failure(traced.calls)
    # A failure that lasts may begin in a checkpoint: the next commit notices it.
    if late and not fails_in_checkpoint(traced.calls):
        findings.diverge(f"{what}, and then it acknowledged {late[:3]}")


def first_failure(calls: list[Call]) -> int:
    """Where the first sync is that failed."""
    failed = next((i for i, call in enumerate(calls) if call.name == "sync" and call.failed), None)
    assert failed is not None, "no sync failed"
    return failed


def fails_in_checkpoint(calls: list[Call]) -> bool:
    """Whether that sync belongs to a checkpoint: of the database, or of a log without news."""
    failed = first_failure(calls)
    path = calls[failed].path
    written = False
    for call in calls[:failed]:
        if call.path == path:
            written = call.name == "pwrite64" or (written and call.name != "sync")
    return path.endswith(".db") or not written


def acknowledged_after_failure(calls: list[Call]) -> list[str]:
    """What was printed after the first sync that failed."""
    failed = first_failure(calls)
    return [
        call.content.decode()
        for call in calls[failed:]
        if call.name == "write" and call.content.startswith((b"accepted", b"learned"))
    ]
