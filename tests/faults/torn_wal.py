"""A write-ahead log cut short or with flipped bits: a prefix of the history, or a refusal."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from memory_store.errors import StoreUnusableError
from memory_store.store import MemoryStore
from tests.faults.findings import ALL, Findings, check_memory
from tests.store.builders import ledger_rows

ROOT = Path(__file__).parents[2]
WAL = "memory.db-wal"
LONGEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class History:
    """What a memory holds, in order."""

    facts: list[str]
    events: list[tuple[str, str]]
    updates: list[str]

    def begins(self, whole: History) -> bool:
        """Whether this is how the other one began."""
        return all(
            mine == theirs[: len(mine)]
            for mine, theirs in (
                (self.facts, whole.facts),
                (self.events, whole.events),
                (self.updates, whole.updates),
            )
        )


def history_of(store: MemoryStore) -> History:
    return History(
        facts=[fact.id for fact in store.facts(limit=ALL)],
        events=[(event.kind.value, event.fact_id) for event in store.events(limit=ALL)],
        updates=[f"{row.fact_id} {row.digest_after}" for row in ledger_rows(store.connection)],
    )


def leave_a_log(folder: Path) -> None:
    """A data folder whose writer was killed before its log was moved into the database."""
    folder.mkdir(parents=True)
    database = folder / "memory.db"
    with MemoryStore.open(database):
        pass
    command = [sys.executable, "-m", "tests.faults.store_child", str(database)]
    with subprocess.Popen([*command, "FULL", str(ALL), "2", "30"], cwd=ROOT, stdout=-1) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line == b"done \n":
                child.kill()
        child.wait(LONGEST_SECONDS)
    assert (folder / WAL).stat().st_size > 100_000


def damage(log: bytearray, chance: random.Random) -> str:
    """Alters a log; says how."""
    offset = chance.choice((chance.randrange(len(log)), chance.randrange(100)))
    how = chance.choice(("cut", "flip", "zeros", "noise", "hole"))
    length = min(chance.choice((1, 8, 512, 4096)), len(log) - offset)
    if how == "cut":
        del log[offset:]
    elif how == "flip":
        log[offset] ^= 1 << chance.randrange(8)
    elif how == "zeros":
        log[offset : offset + length] = bytes(length)
    elif how == "noise":
        log[offset : offset + length] = chance.randbytes(length)
    else:
        del log[offset : offset + length]
    return f"{how} at {offset}, {length} bytes"


def run(folder: Path, cases: int, seed: int) -> Findings:
    """So many damaged copies of one log."""
    findings = Findings(kind="torn or flipped write-ahead log", seed=seed)
    chance = random.Random(seed)
    left, copied = folder / "left", folder / "copied"
    leave_a_log(left)
    shutil.copytree(left, copied, ignore=shutil.ignore_patterns("*-shm"))
    with MemoryStore.open(copied / "memory.db") as store:
        whole = history_of(store)
    assert len(whole.facts) == 60
    refused = shorter = 0
    for _ in range(cases):
        shutil.rmtree(copied)
        shutil.copytree(left, copied, ignore=shutil.ignore_patterns("*-shm"))
        log = bytearray((copied / WAL).read_bytes())
        how = damage(log, chance)
        (copied / WAL).write_bytes(log)
        findings.cases += 1
        try:
            with MemoryStore.open(copied / "memory.db") as store:
                found = history_of(store)
                check_memory(store, (), findings, how)
        except StoreUnusableError:
            refused += 1
            continue
        shorter += found != whole
        if not found.begins(whole):
            findings.diverge(f"{how}: not a prefix of the history")
    findings.remarks.append(f"{shorter} recovered a prefix, {refused} refused, the others whole")
    return findings
