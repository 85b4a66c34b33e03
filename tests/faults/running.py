"""Store, learning loop and hash learner together, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from agent.config import DEFAULT_MAX_ATTEMPTS
from agent.server.loop import backoff
from agent.server.loop.learning_loop import LearningLoop
from agent.server.loop.serving import Hooks, LoopSettings
from agent.server.loop.snapshot_keeper import SnapshotKeeper, SnapshotSettings, recorded_in
from agent.snapshots import remove_unfinished
from memory_store.errors import StoreFailedError
from memory_store.store import MemoryStore
from memory_store.writer import LOG_PAGES, StoreThreads
from tests.faults.hash_learner import ALGORITHM, POLICY, hash_learner, never
from tests.faults.script import is_settled

SETTLE_SECONDS = 60.0
SNAPSHOT_UPDATES = 7


class Life:
    """A memory that learns, from its start to its stop."""

    def __init__(self, store: StoreThreads, loop: LearningLoop, task: asyncio.Task[None]) -> None:
        self.store = store
        self.loop = loop
        self.task = task

    async def settle(self) -> None:
        """Waits until there is nothing left to do."""
        self.loop.wake()
        async with asyncio.timeout(SETTLE_SECONDS):
            while self.loop.learner is None or not await self.store.read(is_settled):
                if self.task.done():
                    self.task.result()  # raises why it ended
                await asyncio.sleep(0.003)


@asynccontextmanager
async def living(
    folder: Path,
    *,
    reach: Callable[[str], None] = never,
    open_store: Callable[..., MemoryStore] = MemoryStore.open,
    on_fatal: Callable[[StoreFailedError], None] | None = None,
    on_commit: Callable[[int], None] | None = None,
    log_pages: int = LOG_PAGES,
    max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    algorithm: str = ALGORITHM,
    accept_drift: bool = False,
    every_updates: int = SNAPSHOT_UPDATES,
) -> AsyncIterator[Life]:
    """A life on a data folder, without the waiting that a server does between attempts."""
    folder.mkdir(parents=True, exist_ok=True)
    snapshots = folder / "snapshots"
    remove_unfinished(snapshots)
    waits = backoff.FIRST_RESTART_SECONDS, backoff.DISK_RETRY_SECONDS
    first_rest, backoff.FIRST_REST_SECONDS = backoff.FIRST_REST_SECONDS, 0.001
    backoff.FIRST_RESTART_SECONDS = backoff.DISK_RETRY_SECONDS = 0.01
    store = await StoreThreads.open(
        folder / "memory.db",
        open_store=open_store,
        on_fatal=on_fatal,
        on_commit=on_commit,
        log_pages=log_pages,
    )
    loop = LearningLoop(
        store,
        partial(hash_learner, reach, algorithm),
        LoopSettings(
            model="hash",
            policy=POLICY,
            snapshots=snapshots,
            max_attempts=max_attempts,
            accept_drift=accept_drift,
        ),
        Hooks(
            on_update=lambda update: keeper.updated(update),
            keep_only=lambda versions: keeper.keep_only(versions),
        ),
    )
    keeper = SnapshotKeeper(
        SnapshotSettings(folder=snapshots, every_updates=every_updates),
        lambda: loop.learner,
        recorded=recorded_in(store),
    )
    await keeper.look()
    task = asyncio.create_task(loop.run())
    try:
        yield Life(store, loop, task)
        loop.stop()
        await task
    finally:
        task.cancel()
        await keeper.finish()
        await store.close()
        backoff.FIRST_RESTART_SECONDS, backoff.DISK_RETRY_SECONDS = waits
        backoff.FIRST_REST_SECONDS = first_rest
