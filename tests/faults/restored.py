"""An old database put back beside newer snapshots, then learning goes on (with the hash learner).

The lost future's snapshots have the same and higher versions. Weights must be those of the ledger,
new snapshots must be written and kept, and the next start must use one.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from agent.snapshots import read_manifest, snapshot_folders
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, NewFact
from tests.faults.findings import ALL, Findings, check_memory
from tests.faults.running import SNAPSHOT_UPDATES, living
from tests.store.builders import ledger_rows

FEWEST, MOST = SNAPSHOT_UPDATES, 4 * SNAPSHOT_UPDATES


async def run(folder: Path, cases: int, seed: int) -> Findings:
    """So many memories, each with a past, a lost future and another one."""
    findings = Findings(kind="restored database", seed=seed)
    chance = random.Random(seed)
    for number in range(cases):
        await _restore(folder / f"case-{number}", chance, findings)
        findings.cases += 1
    return findings


async def _restore(data: Path, chance: random.Random, findings: Findings) -> None:
    past, lost, new = (
        [
            NewFact(question=f"{when} {number}?", answer="Piano", fact_id=f"{when}-{number}")
            for number in range(chance.randrange(FEWEST, MOST))
        ]
        for when in ("past", "lost", "new")
    )
    await _learn(data, past)
    kept = data.with_name(f"{data.name}.db")
    shutil.copy(data / "memory.db", kept)  # it was closed: the log is empty
    await _learn(data, lost)
    shutil.copy(kept, data / "memory.db")
    await _learn(data, new)
    served = await _learn(data, [])
    with MemoryStore.open(data / "memory.db") as store:
        check_memory(store, [str(fact.fact_id) for fact in (*past, *new)], findings, data.name)
        recorded = {row.model_version: row.digest_after for row in ledger_rows(store.connection)}
        ready = [e for e in store.events(limit=ALL) if e.kind is EventKind.LEARNER_READY]
    if served != recorded[max(recorded)]:
        findings.diverge(f"{data.name}: other weights are served than the ledger's")
    own = [
        version
        for version, folder in snapshot_folders(data / "snapshots")
        if read_manifest(folder).digest == recorded.get(version)
    ]
    if not own or max(recorded) - max(own) >= SNAPSHOT_UPDATES:
        findings.diverge(f"{data.name}: the newest snapshots are {own} of {max(recorded)} updates")
    elif f"replayed {max(recorded) - max(own)} updates" not in ready[-1].message:
        findings.diverge(f"{data.name}: {ready[-1].message}, with a snapshot of {max(own)}")


async def _learn(data: Path, facts: Sequence[NewFact]) -> str:
    """One life in which some facts are learned; the weights at its end."""
    async with living(data) as life:
        for fact in facts:
            await life.store.write(lambda store, new=fact: store.teach(new))  # type: ignore[misc]
        await life.settle()
        learner = await life.loop.current()
        return str(learner.weights)  # type: ignore[attr-defined]
