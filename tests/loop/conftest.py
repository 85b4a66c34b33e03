from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.server.loop import backoff as rest
from agent.server.loop.learning_loop import LearningLoop
from agent.server.loop.serving import Hooks, LoopSettings
from agent.teaching.types import LearnerDescription
from memory_store.store import MemoryStore
from memory_store.vocabulary import Event, Fact, FactState, Guards, NewFact, Policy, Update
from memory_store.writer import StoreThreads
from tests.loop.fake_learner import Machine
from tests.store.builders import ledger_rows

GUARDS = Guards(candidates=2, rehearsed=2)
POLICY = Policy(name="until-known", learning_rate=1e-3, max_steps=20, guards=GUARDS)

OnLoaded = Callable[[LearnerDescription], Awaitable[None]]


class World:
    """A memory, a machine for learners, and the learning loops that run on them."""

    def __init__(self, snapshots: Path) -> None:
        self.settings = LoopSettings(model="fake", policy=POLICY, snapshots=snapshots)
        self.store: StoreThreads
        self.machine = Machine()
        self.published: list[Event] = []
        self.held: list[tuple[int, str]] = []
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path, open_store: Callable[..., MemoryStore] = MemoryStore.open
    ) -> AsyncIterator[World]:
        """A world on a database file."""
        world = cls(path.parent / "snapshots")
        world.store = await StoreThreads.open(
            path, on_commit=lambda sequence: world._changed.set(), open_store=open_store
        )
        try:
            yield world
        finally:
            await world.store.close()

    def loop(self, on_loaded: OnLoaded | None = None) -> LearningLoop:
        hooks = Hooks(publish=self._publish, hold_snapshot=self._hold_snapshot)
        if on_loaded is not None:
            hooks = replace(hooks, on_loaded=on_loaded)
        return LearningLoop(self.store, self.machine.start, self.settings, hooks)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[LearningLoop]:
        """A server's life: a loop that runs inside, and is stopped in order at the end."""
        loop = self.loop()
        self._running = task = asyncio.create_task(loop.run())
        task.add_done_callback(lambda _: self._changed.set())
        try:
            yield loop
            loop.stop()
            async with asyncio.timeout(60):
                await task
        finally:
            task.cancel()

    async def teach(self, question: str, **rest) -> str:
        """Accepts a fact, as the server does; its id."""
        new = NewFact(question=question, answer="right", **rest)
        return (await self.store.write(lambda store: store.teach(new))).fact.id

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Waits for what a commit or a step brings about."""
        async with asyncio.timeout(60):
            while not await condition():
                if self._running is not None and self._running.done():
                    self._running.result()  # raises why it ended
                await self._changed.wait()
                self._changed.clear()

    async def until_state(self, fact_id: str, state: FactState) -> None:
        async def reached() -> bool:
            return (await self.fact(fact_id)).state is state

        await self.until(reached)

    async def until_event(self, kind: str, times: int = 1) -> None:
        async def happened() -> bool:
            return [event.kind for event in await self.events()].count(kind) >= times  # type: ignore[arg-type]

        await self.until(happened)

    async def fact(self, fact_id: str) -> Fact:
        return await self.store.read(lambda store: store.fact(fact_id))

    async def ledger(self) -> list[Update]:
        return await self.store.read(lambda store: ledger_rows(store.connection))

    async def events(self, *fact_ids: str) -> list[Event]:
        return await self.store.read(lambda store: store.events(fact_ids=fact_ids))

    async def _hold_snapshot(self, version: int, digest: str) -> None:
        assert not self.machine.learners[-1]._died.done()
        self.held.append((version, digest))

    def _publish(self, event: Event) -> None:
        self.published.append(event)
        self._changed.set()


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "FIRST_RESTART_SECONDS", 0)
    monkeypatch.setattr(rest, "DISK_RETRY_SECONDS", 0)
    monkeypatch.setattr(rest, "FIRST_REST_SECONDS", 0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World.open(tmp_path / "memory.db") as opened:
        yield opened
