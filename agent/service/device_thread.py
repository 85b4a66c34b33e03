"""One thread for one device: jobs take turns, the most urgent first.

A job is a generator. The thread runs it unit by unit (a token, a gradient step), and before each
unit looks for something more urgent, so that a question need not wait for the end of an update.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

T = TypeVar("T")


class Priority(IntEnum):
    """Lower is more urgent. Jobs of one priority run one after the other, first come first."""

    ANSWER = 0
    LEARN = 1
    AUDIT = 2


@dataclass(order=True, slots=True)
class _Job:
    priority: int
    order: int
    start: Callable[[], Iterator[Any]] = field(compare=False)
    deliver: Callable[[Any], None] = field(compare=False)
    cancelled: threading.Event = field(compare=False, default_factory=threading.Event)
    running: Iterator[Any] | None = field(compare=False, default=None)


class _End:
    """Delivered after the last item; carries the exception that ended the job, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class DeviceThread:
    """Runs generators on one thread and hands what they yield to an asyncio loop."""

    def __init__(self) -> None:
        self._jobs: list[_Job] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    async def stream(
        self, priority: Priority, start: Callable[[], Iterator[T]]
    ) -> AsyncIterator[T]:
        """Runs `start()` on the thread and yields what it yields.

        Leaving the loop early cancels the job before its next unit.
        """
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[Any] = asyncio.Queue()

        def deliver(item: Any) -> None:
            loop.call_soon_threadsafe(items.put_nowait, item)

        job = _Job(priority, next(self._order), start, deliver)
        with self._changed:
            if self._closing:
                raise RuntimeError("the device thread is closed")
            heapq.heappush(self._jobs, job)
            self._changed.notify()
        try:
            while not isinstance(item := await items.get(), _End):
                yield item
            if item.error is not None:
                raise item.error
        finally:
            job.cancelled.set()

    async def call(self, priority: Priority, function: Callable[[], T]) -> T:
        """Runs a function as a job of one unit and returns its result."""

        def unit() -> Iterator[T]:
            yield function()

        results = [result async for result in self.stream(priority, unit)]
        return results[0]

    def close(self) -> None:
        """Finishes the unit in hand and ends; jobs that wait end with an error."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        for job in self._jobs:
            job.deliver(_End(RuntimeError("the device thread is closed")))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                job = heapq.heappop(self._jobs)
            if self._take_turn(job):
                with self._changed:
                    heapq.heappush(self._jobs, job)

    @staticmethod
    def _take_turn(job: _Job) -> bool:
        """Runs one unit; True if there may be more."""
        try:
            if job.cancelled.is_set():
                close = getattr(job.running, "close", None)
                if close is not None:
                    close()
                return False
            if job.running is None:
                job.running = job.start()
            job.deliver(next(job.running))
        except StopIteration:
            job.deliver(_End())
            return False
        except Exception as error:  # noqa: BLE001 - whoever waits for the job gets it
            job.deliver(_End(error))
            return False
        return True
