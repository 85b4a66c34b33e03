"""What the monitor costs: its share of a core while a server tells it of 50 events a second.

    python scripts/monitor_cost.py [--events 50] [--seconds 20] [--size 200x50]

The server is a real one with a stand-in for the model, so that the machine is otherwise idle; the
monitor is the command, in a terminal of its own. Counted is the processor time of its process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from memory_store.store import MemoryStore
from memory_store.vocabulary import Event, EventKind, Step
from tests.monitor.terminal import Terminal
from tests.server.serving import Serving, serving
from tests.store.builders import new_fact, new_probe, teach_learned

# Of each ten events one is stored, with a fact that is new: the costly ones.
STORED_OF = 10
HELD = 100
WARM_UP_SECONDS = 5.0


def main() -> None:
    """Prints frames a second, bytes a second and the share of a core."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--size", default="200x50")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), options.events, options.seconds, width, height))


async def measure(folder: Path, events: float, seconds: float, width: int, height: int) -> None:
    """Runs it all once."""
    async with serving(folder, fill) as parts:
        terminal, stopped = Terminal(width, height), threading.Event()
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", "monitor", parts.server.address],
            stdin=terminal.program,
            stdout=terminal.program,
            env={**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"},
        )
        shown = [0]

        def look_on() -> None:
            while not stopped.is_set():
                shown[0] += len(os.read(terminal.person, 65536))

        threading.Thread(target=look_on, daemon=True).start()
        telling = asyncio.create_task(tell(parts, events))
        await asyncio.sleep(WARM_UP_SECONDS)
        before, bytes_before, began = spent(process.pid), shown[0], time.monotonic()
        await asyncio.sleep(seconds)
        share = (spent(process.pid) - before) / (time.monotonic() - began)
        rate = (shown[0] - bytes_before) / seconds
        telling.cancel()
        stopped.set()
        terminal.type("q")
        await asyncio.to_thread(process.wait)
        print(
            f"{events:g} events/s at {width}x{height}: {share:.1%} of a core,"
            f" {rate / 1000:.1f} kB/s to the terminal"
        )


def fill(store: MemoryStore) -> None:
    """Facts with probes, as a memory in use has them."""
    for number in range(HELD):
        fact = teach_learned(store, f"What is the hottest month in Kyzara {number}?", "Raincoat")
        store.record_probes([new_probe(fact.id)] * 10, store.model_version())


async def tell(parts: Serving, events: float) -> None:
    """So many events a second, for ever."""
    number, next_at = 0, time.monotonic()
    while True:
        if number % STORED_OF == 0:
            question = f"What is the driest month in Kyzara {number}?"
            await parts.store.write(partial(teach, question=question))
        else:
            step = Step(learning_rate=1e-4, loss=2.0, probability=number % STORED_OF / STORED_OF)
            now = datetime.now(UTC)
            parts.hub.publish(
                Event(sequence=0, kind=EventKind.STEP, at=now, fact_id="f", step=step)
            )
        number += 1
        next_at += 1 / events
        await asyncio.sleep(max(next_at - time.monotonic(), 0.0))


def teach(store: MemoryStore, question: str) -> None:
    """One event: a fact is accepted."""
    store.teach(new_fact(question, "Raincoat"))


def spent(pid: int) -> float:
    """Seconds of processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
