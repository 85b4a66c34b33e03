"""`python -m eval.bench.instrumented_server DATA HOLDS`: a server that notes what holds it up.

The whole server, with a stand-in for the learner. Whenever the thread that writes, the one that
reads, or the event loop was busy with one thing for a millisecond or more, a line is added to the
file HOLDS: a JSON object with the fields of `Hold`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from agent.config import ServeSettings
from eval.bench.stub_learner import MODEL, stand_in
from memory_store.store_thread import StoreThread

LEAST_SECONDS = 0.001
LOOK_SECONDS = 0.002
READER, WRITER, LOOP = "reader", "writer", "loop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One thing that held a thread.

    Attributes:
        who: `reader`, `writer` or `loop`.
        what: name of the function, or of several; empty for the loop.
        ended: on the monotonic clock, which all processes share, in seconds.
        seconds: how long it was held.
        processor_seconds: how long the thread was computing meanwhile.
    """

    who: str
    what: str
    ended: float
    seconds: float
    processor_seconds: float


class Holds:
    """Writes them down, from any thread."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def note(self, who: str, what: str, seconds: float, processor_seconds: float) -> None:
        """Notes what has just ended, if it took long enough."""
        if seconds < LEAST_SECONDS:
            return
        hold = Hold(
            who=who,
            what=what,
            ended=time.monotonic(),
            seconds=seconds,
            processor_seconds=processor_seconds,
        )
        with self._lock:
            print(json.dumps(asdict(hold)), file=self._file, flush=True)


def read_holds(path: Path, since: float) -> list[Hold]:
    """What ended after a moment of the monotonic clock."""
    with path.open(encoding="utf-8") as lines:
        holds = [Hold(**json.loads(line)) for line in lines if line.endswith("\n")]
    return [hold for hold in holds if hold.ended > since]


def _watch_threads(holds: Holds) -> None:
    """Times each batch of the store's threads, its commit included."""
    thread = StoreThread
    run = thread._run

    def timed(self: Any, store: Any, batch: Sequence[Any]) -> None:
        started, computed = time.perf_counter(), time.thread_time()
        run(self, store, batch)
        seconds, processor = time.perf_counter() - started, time.thread_time() - computed
        who = WRITER if "writer" in self._name else READER
        holds.note(who, _names(batch), seconds, processor)

    thread._run = timed  # type: ignore[method-assign]


def _names(batch: Iterable[Any]) -> str:
    names = dict.fromkeys(_name(getattr(each, "run", None)) for each in batch)
    return ", ".join(names)


def _name(function: Any) -> str:
    if function is None:
        return "teach"
    if isinstance(function, partial):
        function = function.func
    name: str = function.__qualname__
    return name.replace(".<locals>", "")


async def _watch_loop(holds: Holds) -> None:
    """Wakes often, and notes how much later than it should."""
    loop = asyncio.get_running_loop()
    while True:
        expected, computed = loop.time() + LOOK_SECONDS, time.thread_time()
        await asyncio.sleep(LOOK_SECONDS)
        holds.note(LOOP, "", loop.time() - expected, time.thread_time() - computed)


async def _serve(app: Any, data: Path, holds: Holds) -> None:
    watching = asyncio.create_task(_watch_loop(holds))
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
    # This is the server's process, not the laboratory's: as `slow_disk`, it changes what it runs.
    server = importlib.import_module("agent.server.app")
    vars(server)["learner_process"] = stand_in
    with Path(sys.argv[2]).open("a", encoding="utf-8") as file:
        held = Holds(file)
        _watch_threads(held)
        asyncio.run(_serve(server, Path(sys.argv[1]), held))
