"""The ticks of the clock: what happens by time, not because a fact came in.

The only module that knows APScheduler. Its jobs live in memory: what must survive a restart is in
the database. Facts never wait for a tick.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from agent.errors import LearnerUnavailableError, LearningFailedError
from agent.teaching.learner_protocol import Learner
from agent.teaching.procedure import probe_retention
from memory_store.store import MemoryStore
from memory_store.vocabulary import HELD
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)

AUDITED_FACTS = 16
# Between two looks at whether the clock was set back, and what is taken for its usual corrections.
CLOCK_SECONDS = 5.0
CLOCK_TOLERANCE = timedelta(seconds=1)


class Ticks:
    """Runs coroutine functions at intervals on the running loop.

    APScheduler counts by the wall clock: set back by an hour, it would be silent for one. So that
    is looked for, and what comes next is moved with it.

    Args:
        wall: the clock that APScheduler goes by.
        steady: seconds, that never go back.
    """

    def __init__(
        self,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._following: asyncio.Task[None] | None = None
        # A tick that comes late still counts, but several late ones count once.
        self._scheduler = AsyncIOScheduler(
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )

    def every(
        self, seconds: float, action: Callable[[], Awaitable[None]], *, at_start: bool = False
    ) -> None:
        """Runs `action` at this interval, and once at the start if wanted; 0 means never."""
        if seconds > 0:
            first = {"next_run_time": datetime.now(UTC)} if at_start else {}
            self._scheduler.add_job(action, "interval", seconds=seconds, **first)

    def start(self) -> None:
        """Begins to count."""
        self._scheduler.start()
        self._following = asyncio.create_task(self._follow_clock())

    def stop(self) -> None:
        """Ends; a running action is not waited for."""
        if self._following is not None:
            self._following.cancel()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    async def _follow_clock(self) -> None:
        before = self._difference()
        while True:
            await asyncio.sleep(CLOCK_SECONDS)
            now = self._difference()
            moved, before = now - before, now
            if moved < -CLOCK_TOLERANCE:
                logger.warning("the clock was set back by %s", -moved)
                for job in self._scheduler.get_jobs():
                    job.modify(next_run_time=job.next_run_time + moved)

    def _difference(self) -> timedelta:
        """Between the two clocks: it changes when the wall clock is set."""
        return self._wall() - datetime.fromtimestamp(0, UTC) - timedelta(seconds=self._steady())


class RetentionAudit:
    """Probes some held facts at each tick, round and round, so that silent losses show.

    Probes have the learner's lowest priority: they wait for questions and updates.
    """

    def __init__(self, store: StoreThreads, learner: Callable[[], Learner | None]) -> None:
        self._store = store
        self._learner = learner
        self._position = 0

    async def tick(self) -> None:
        """Probes the next `AUDITED_FACTS` facts and stores what it finds."""
        learner = self._learner()
        if learner is None:
            return
        position = self._position
        facts = await self._store.read(
            lambda store: store.facts(after_position=position, limit=AUDITED_FACTS, states=HELD)
        )
        for fact in facts:
            self._position = fact.position
            try:
                row, version = await probe_retention(learner, fact)
            except LearnerUnavailableError as error:
                logger.info("retention audit broken off: %s", error)
                return
            except LearningFailedError as error:
                logger.warning("retention of %s cannot be probed: %s", fact.id, error)
                continue
            await self._store.write(
                partial(MemoryStore.record_probes, probes_=[row], model_version=version)
            )
        if len(facts) < AUDITED_FACTS:
            self._position = 0
