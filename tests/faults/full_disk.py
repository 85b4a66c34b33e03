"""A full disk: a small tmpfs on which a memory learns until nothing fits, and which then grows."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from memory_store.errors import StoreFailedError, StoreUnusableError
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState, NewFact
from tests.faults.findings import ALL, Findings, check_memory
from tests.faults.hash_learner import HashLearner
from tests.faults.killing import end_of
from tests.faults.running import living

KIBIBYTES = 1024
LOG_PAGES = 20  # so that it is also while the log is moved into the database that nothing fits
MORE_FACTS = 5
REFUSALS = 5


@functools.cache
def why_not() -> str:
    """Why no disk of its own can be had here; empty if it can."""
    if os.geteuid() != 0:
        return "only root may mount a tmpfs"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder)):
                return ""
        except (OSError, subprocess.CalledProcessError) as error:
            return f"no tmpfs can be mounted: {error}"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A folder that is a disk of its own."""
    options = f"size={KIBIBYTES}k"
    _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield
    finally:
        _run("umount", str(folder))


def enlarge(folder: Path) -> None:
    _run("mount", "-o", "remount,size=16m", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


async def run(folder: Path, cases: int, seed: int) -> Findings:
    """So many disks, each filled while a loop learns."""
    findings = Findings(kind="full disk, then enlarged", seed=seed)
    chance = random.Random(seed)
    for number in range(cases):
        data = folder / f"disk-{number}"
        data.mkdir(parents=True)
        with small_disk(data):
            await _fill(data, chance, findings)
        findings.cases += 1
    return findings


async def _fill(data: Path, chance: random.Random, findings: Findings) -> None:
    acknowledged: list[str] = []
    fatal: list[StoreFailedError] = []
    refusals = 0
    async with living(data, on_fatal=fatal.append, log_pages=LOG_PAGES) as life:
        number = 0
        while refusals < REFUSALS:
            number += 1
            new = NewFact(
                question=f"Question {number}?",
                answer="answer " * chance.randrange(1, 40),
                fact_id=f"fact-{number}",
            )
            try:
                await life.store.write(partial(_teach, new=new))
            except StoreUnusableError:
                refusals += 1
            else:
                acknowledged.append(f"fact-{number}")
            life.loop.wake()
            await asyncio.sleep(0.002)
        full_at = len(acknowledged)
        enlarge(data)
        for more in range(MORE_FACTS):
            new = NewFact(question=f"More {more}?", answer="a", fact_id=f"more-{more}")
            await life.store.write(partial(_teach, new=new))
            acknowledged.append(f"more-{more}")
        await life.settle()
        learner = await life.loop.current()
        assert isinstance(learner, HashLearner)
        weights = learner.weights
    findings.remarks.append(f"full after {full_at} facts")
    if fatal:
        findings.diverge(f"a full disk is no failure: {fatal[0]}")
    with MemoryStore.open(data / "memory.db") as store:
        check_memory(store, acknowledged, findings, data.name)
        unsettled = [
            fact.id
            for fact in store.facts(limit=ALL)
            if fact.state in (FactState.QUEUED, FactState.LEARNING, FactState.QUARANTINED)
        ]
        if unsettled:
            findings.diverge(f"{data.name}: not learned: {unsettled}")
    if end_of(data).digest != weights:
        findings.diverge(f"{data.name}: the ledger gives other weights")


def _teach(store: MemoryStore, new: NewFact) -> None:
    store.teach(new)
