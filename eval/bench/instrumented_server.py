"""`python -m eval.bench.instrumented_server DATA STALLS`: a server that records what blocks it.

The whole server, with a stub learner. Whenever the writing thread, the reading thread or the event
loop was busy with one thing for a millisecond or more, a line is added to the file STALLS: a JSON
object with the fields of `Stall`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from agent.config import ServeSettings
from eval.bench.stub_learner import MODEL, stub_process
from memory_store.store_thread import StoreThread

LEAST_SECONDS = 0.001
LOOK_SECONDS = 0.002
READER, WRITER, LOOP = "reader", "writer", "loop"


@dataclass(frozen=True, slots=True)
class Stall:
    """One thing that blocked a thread.

    Attributes:
        who: `reader`, `writer` or `loop`.
        what: names of the functions; empty for the loop.
        ended: when, in seconds of the monotonic clock, which all processes share.
        seconds: how long it took.
        processor_seconds: how long the thread was computing during that time.
    """

    who: str
    what: str
    ended: float
    seconds: float
    processor_seconds: float


class StallLog:
    """Writes stalls to a file, from any thread."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def note(self, who: str, what: str, seconds: float, processor_seconds: float) -> None:
        """Records what has just ended, if it took long enough."""
        if seconds < LEAST_SECONDS:
            return
        stall = Stall(who, what, time.monotonic(), seconds, processor_seconds)
        with self._lock:
            print(json.dumps(asdict(stall)), file=self._file, flush=True)


def read_stalls(path: Path, since: float) -> list[Stall]:
    """Stalls that ended after a moment of the monotonic clock."""
    with path.open(encoding="utf-8") as lines:
        stalls = [Stall(**json.loads(line)) for line in lines if line.endswith("\n")]
    return [stall for stall in stalls if stall.ended > since]


def _watch_threads(log: StallLog) -> None:
    """Times each batch of the store's threads, including its commit."""
    thread = StoreThread
    run = thread._run

    def timed(self: Any, store: Any, batch: Sequence[Any]) -> None:
        started, computed = time.perf_counter(), time.thread_time()
        run(self, store, batch)
        seconds, processor = time.perf_counter() - started, time.thread_time() - computed
        who = WRITER if "writer" in self._name else READER
        names = dict.fromkeys(_name(getattr(each, "run", None)) for each in batch)
        log.note(who, ", ".join(names), seconds, processor)

    thread._run = timed  # type: ignore[method-assign]


def _name(function: Any) -> str:
    if function is None:
        return "teach"
    if isinstance(function, partial):
        function = function.func
    name: str = function.__qualname__
    return name.replace(".<locals>", "")


async def _watch_loop(log: StallLog) -> None:
    """Wakes often, and records by how much it was late."""
    loop = asyncio.get_running_loop()
    while True:
        expected, computed = loop.time() + LOOK_SECONDS, time.thread_time()
        await asyncio.sleep(LOOK_SECONDS)
        log.note(LOOP, "", loop.time() - expected, time.thread_time() - computed)


async def _serve(app: Any, data: Path, log: StallLog) -> None:
    watching = asyncio.create_task(_watch_loop(log))
    settings = ServeSettings(
        listen="127.0.0.1:0",
        data=data,
        model=MODEL,
        device="cpu",
        max_queued=10_000_000,
        audit_minutes=0,
        review_seconds=0,
        predict_minutes=0,
    )
    try:
        await app.serve(settings, lambda address: print(f"listening on {address}", flush=True))
    finally:
        watching.cancel()


if __name__ == "__main__":
    # This process is the server's: like `slow_disk`, it changes the code that it runs.
    server = importlib.import_module("agent.server.app")
    vars(server)["learner_process"] = stub_process
    with Path(sys.argv[2]).open("a", encoding="utf-8") as file:
        log = StallLog(file)
        _watch_threads(log)
        asyncio.run(_serve(server, Path(sys.argv[1]), log))
