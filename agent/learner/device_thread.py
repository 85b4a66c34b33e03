"""One thread for one device. Jobs take turns, the most urgent first.

A job is a generator. The thread runs it unit by unit (a token, a gradient step). Before each unit
it looks for more urgent jobs, so that a question does not wait for the end of an update. A long
unit admits questions in the middle: see `DeviceThread.pause`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

T = TypeVar("T")

# Seconds of learning for each second of answering while both wait. So learning never stops, and an
# answer takes 1.5 times as long as on an idle device.
LEARNING_SHARE = 0.5
# Learning waits this long for answers, so that an occasional short answer is not interrupted.
LEARNING_PATIENCE_SECONDS = 0.1


class Priority(IntEnum):
    """The urgency of a job; lower is more urgent.

    Answers alternate unit by unit, so that a short one does not wait for a long one. Other jobs of
    the same priority run one after the other, in the order of arrival.
    """

    ANSWER = 0
    LEARN = 1
    AUDIT = 2


@dataclass(order=True, slots=True)
class _Job:
    priority: Priority
    order: int
    start: Callable[[], Iterator[Any]] = field(compare=False)
    deliver: Callable[[Any], None] = field(compare=False)
    cancelled: threading.Event = field(compare=False, default_factory=threading.Event)
    running: Iterator[Any] | None = field(compare=False, default=None)


class _End:
    """Delivered after the last item, with the exception that ended the job, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class DeviceThread:
    """Runs generators on one thread and delivers what they yield to an asyncio loop.

    Args:
        now: a clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._answers: deque[_Job] = deque()
        self._others: list[_Job] = []  # a heap
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closing = False
        # Used on the thread only: seconds that learning is owed, the current job's priority, and
        # since when it runs.
        self._owed = 0.0
        self._current: Priority | None = None
        self._since = 0.0
        self._progress_at, self._working = now(), False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    async def stream(
        self, priority: Priority, start: Callable[[], Iterator[T]]
    ) -> AsyncIterator[T]:
        """Runs the generator `start()` on the thread and yields its items.

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
            self._queue(job)
            self._changed.notify()
        try:
            while not isinstance(item := await items.get(), _End):
                yield item
            if item.error is not None:
                raise item.error
        finally:
            job.cancelled.set()

    async def call(self, priority: Priority, function: Callable[[], T]) -> T:
        """Runs a function as a job of one unit; returns its result."""

        def unit() -> Iterator[T]:
            yield function()

        results = [result async for result in self.stream(priority, unit)]
        return results[0]

    def stalled_seconds(self) -> float:
        """Returns the seconds without progress; 0 without work. May be called on any thread."""
        # `_progress_at` changes before `_working` ends: read in this order, neither is stale.
        since = self._progress_at
        return self._now() - since if self._working else 0.0

    def pause(self) -> None:
        """Answers questions in the middle of a unit. Called by the job, on the thread.

        Nothing but answers: a commit here would change the weights during a forward pass.
        """
        self._progress_at = self._now()
        current = self._current
        if current in (None, Priority.ANSWER) or threading.current_thread() is not self._thread:
            return
        self._account()
        while (job := self._next_answer(learning=current is Priority.LEARN)) is not None:
            self._work_on(job, learning_waits=current is Priority.LEARN)
        self._current, self._since = current, self._now()

    def close(self) -> None:
        """Finishes the current unit and stops. Waiting jobs end with an error."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        for job in [*self._answers, *self._others]:
            job.deliver(_End(RuntimeError("the device thread is closed")))

    # -- On the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._answers or self._others or self._closing):
                    self._changed.wait()
                if self._closing:
                    return
                learning = bool(self._others) and self._others[0].priority is Priority.LEARN
            job = self._next_answer(learning=learning)
            if job is None:
                with self._changed:
                    if self._closing:
                        return
                    job = heapq.heappop(self._others)
            self._work_on(job, learning_waits=learning)

    def _next_answer(self, *, learning: bool) -> _Job | None:
        """Takes the next answer; None if there is none, or if it is the turn of learning."""
        impatient = learning and self._owed > LEARNING_PATIENCE_SECONDS
        if not self._answers or self._closing or impatient:
            return None
        return self._answers.popleft()

    def _work_on(self, job: _Job, *, learning_waits: bool) -> None:
        """Runs one unit of a job, and queues the job again if it may have more."""
        self._current, self._since = job.priority, self._now()
        self._progress_at, self._working = self._since, True
        more = self._take_turn(job)
        self._progress_at, self._working = self._now(), False
        if job.priority is not Priority.ANSWER or learning_waits:
            self._account()
        self._current = None
        if more:
            with self._changed:
                self._queue(job)

    def _account(self) -> None:
        """Accounts for the time since the last call."""
        seconds = self._now() - self._since
        self._since += seconds
        if self._current is Priority.ANSWER:
            self._owed += LEARNING_SHARE * seconds
        elif self._current is Priority.LEARN:
            # Learning while no answer waits pays off debt, but earns no credit.
            credit = -seconds if self._answers else min(self._owed, 0.0)
            self._owed = max(self._owed - seconds, credit)

    def _queue(self, job: _Job) -> None:
        if job.priority is Priority.ANSWER:
            self._answers.append(job)
        else:
            heapq.heappush(self._others, job)

    @staticmethod
    def _take_turn(job: _Job) -> bool:
        """Runs one unit; returns whether there may be more."""
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
        except Exception as error:  # noqa: BLE001 - raised where the job is awaited
            job.deliver(_End(error))
            return False
        return True
