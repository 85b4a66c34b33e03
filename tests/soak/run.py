"""One soak: bursts of teachers, then steady work for a while, with an eye on the processes.

Flat means: what a process holds in the last fifth of the steady time is no more than in the second
fifth, give or take a little; the first fifth is for caches to fill.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from memory_store.store import MemoryStore
from tests.integration.servers import RunningServer, running
from tests.soak.clients import Crowd, Seen

# `tiny` is through with a fact in some milliseconds.
QUICK = (
    *("--policy", "fixed", "--learning-rate", "1e-6", "--max-steps", "1", "--guards", "none"),
    "--allow-ungated",
    *("--audit-minutes", "0.1", "--review-seconds", "5"),
)
TEACHERS, TEACH_EVERY = 4, 0.4
ASKERS, ASK_EVERY = 2, 0.2
READERS, STALLED = 2, 3
# What a flat process may grow by: allocators keep some, SQLite and snapshots use some.
MEMORY_SLACK, FILES_SLACK = 24 * 2**20, 8


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds: resident memory in bytes, and open file descriptors."""

    memory: int
    files: int

    @classmethod
    def by(cls, pid: int) -> Held:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return cls(int(fields[1]) * 4096, len(list(Path(f"/proc/{pid}/fd").iterdir())))


@dataclass(slots=True)
class Report:
    """What a soak found.

    Attributes:
        seconds: of steady work.
        bursts: teachers, and facts a second of all of them.
        seen: by the clients.
        held: by process, in the order of time.
        wal_bytes: the same of the write-ahead log.
        stored: ids of all facts in the memory at the end.
        learned: how many of them had been through the learner.
    """

    seconds: float
    bursts: dict[int, float] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)
    held: dict[str, list[Held]] = field(default_factory=lambda: {"server": [], "learner": []})
    wal_bytes: list[int] = field(default_factory=list)
    stored: set[str] = field(default_factory=set)
    learned: int = 0

    def growth(self, process: str) -> tuple[float, float]:
        """Memory in bytes and files, from the second fifth of the time to the last."""
        held = self.held[process]
        fifth = max(len(held) // 5, 1)
        early, late = held[fifth : 2 * fifth] or held, held[-fifth:]
        return (
            statistics.median(h.memory for h in late) - statistics.median(h.memory for h in early),
            statistics.median(h.files for h in late) - statistics.median(h.files for h in early),
        )

    def problems(self) -> list[str]:
        """Which promises were broken; empty if none."""
        found = []
        if self.seen.taught != self.stored:
            missing, extra = self.seen.taught - self.stored, self.stored - self.seen.taught
            found.append(f"{len(missing)} facts were lost and {len(extra)} made up")
        for number, accepted in enumerate(self.seen.accepted):
            if missed := len(self.seen.taught - accepted):
                found.append(f"watcher {number} did not see {missed} facts")
        if self.seen.gaps:
            found.append(f"{self.seen.gaps} gaps in the events of a watcher")
        if not self.seen.ask_seconds or not self.learned:
            found.append("nothing was answered, or nothing learned")
        if any(sorted(versions) != versions for versions in self.seen.versions):
            found.append("an answer came from older weights than the one before")
        for process in self.held:
            memory, files = self.growth(process)
            if memory > MEMORY_SLACK:
                found.append(f"the {process} grew by {memory / 2**20:.0f} MiB")
            if files > FILES_SLACK:
                found.append(f"the {process} holds {files:.0f} files more")
        return found


async def soak(folder: Path, seconds: float, burst_facts: int) -> Report:
    """Starts a server and soaks it; see `Report.problems` for what came of it."""
    report = Report(seconds)
    with running(folder / "data", options=QUICK) as server:
        crowd = Crowd(server.address)
        report.seen = crowd.seen
        for teachers in (32, 256):
            report.bursts[teachers] = await crowd.burst(teachers, burst_facts)
        await _steady(server, crowd, report)
    with MemoryStore.open(folder / "data" / "memory.db", read_only=True) as store:
        report.stored = {fact.id for fact in store.facts(limit=10_000_000)}
        report.learned = store.model_version()
    return report


async def _steady(server: RunningServer, crowd: Crowd, report: Report) -> None:
    end = time.monotonic() + report.seconds

    def over() -> bool:
        return time.monotonic() >= end

    watching = [
        *(asyncio.create_task(crowd.watch()) for _ in range(READERS)),
        *(asyncio.create_task(crowd.stall()) for _ in range(STALLED)),
    ]
    facts = max(int(report.seconds / TEACH_EVERY), 1)
    working = [
        *(crowd.teach(facts, TEACH_EVERY) for _ in range(TEACHERS)),
        *(crowd.ask(over, ASK_EVERY) for _ in range(ASKERS)),
        _sample(server, report, over),
    ]
    try:
        await asyncio.gather(*working)
        async with asyncio.timeout(60):  # for readers that are not quite there
            while any(crowd.seen.taught - accepted for accepted in crowd.seen.accepted):
                await asyncio.sleep(0.05)
    finally:
        for task in watching:
            task.cancel()
        for task in watching:
            with suppress(asyncio.CancelledError):
                await task


async def _sample(server: RunningServer, report: Report, over) -> None:
    pids = {"server": server.process.pid, "learner": server.learner_pid()}
    log = server.data / "memory.db-wal"
    pause = max(report.seconds / 120, 0.2)
    while not over():
        for process, pid in pids.items():
            report.held[process].append(Held.by(pid))
        report.wal_bytes.append(log.stat().st_size if log.exists() else 0)
        await asyncio.sleep(pause)
