"""Whatever was acknowledged is there after the process was killed at any moment."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from memory_store.facts import count_by_state
from memory_store.store import MemoryStore
from tests.store import integrity
from tests.store.builders import ids

CYCLES = 4
ROOT = Path(__file__).parents[2]


def test_acknowledged_facts_survive_kill_9(path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown by pytest if the test fails
    chance = random.Random(seed)
    acknowledged: list[str] = []
    for cycle in range(CYCLES):
        acknowledged += teach_until_killed(path, str(cycle), chance.uniform(0.0, 0.3))
        with MemoryStore.open(path) as store:
            stored = ids(store.facts(limit=10**9))
            assert set(acknowledged) <= set(stored)
            # Half of a write would be an event without its fact, or a count that is off.
            assert [event.sequence for event in store.events(limit=10**9)] == [
                *range(1, len(stored) + 1)
            ]
            assert sum(count_by_state(store.connection).values()) == len(stored)
            assert integrity.problems(store.connection) == []
    assert len(acknowledged) >= CYCLES


def teach_until_killed(path: Path, name: str, seconds: float) -> list[str]:
    """Runs the child, kills it some time after its first answer, returns what it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.store.crash_child", str(path), name],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(seconds)
        child.kill()
        # The last line may be cut: it was being printed, so it was acknowledged, but is no id.
        rest = child.stdout.read()
    return [line for line in (first + rest).split("\n")[:-1] if line]
