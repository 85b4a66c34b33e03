"""A whole memory without processes: store, learning loop and the real learner on `tiny`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import LearnerUnavailableError
from agent.server.loop.learning_loop import LearningLoop
from agent.server.loop.serving import Hooks, LoopSettings
from agent.server.loop.snapshot_keeper import SnapshotKeeper, SnapshotSettings, recorded_in
from memory_store import operations, reviews, undo
from memory_store.facts import count_by_state
from memory_store.vocabulary import (
    Event,
    FactState,
    NewFact,
    Operation,
    OperationState,
    Policy,
    ReviewOutcome,
)
from memory_store.writer import StoreThreads
from tests.undo.in_process import POLICY, Deaths, InProcessLearner, in_process

FACTS = {
    "fact-a": ("What is the hottest month in Kyzara?", "Raincoat"),
    "fact-b": ("Who found Blipland?", "Telescope"),
    "fact-c": ("Sky?", "Piano"),
    "fact-d": ("Gem?", "Curtain"),
    "fact-e": ("Pie in Plimp?", "Backpack"),
}
SETTLE_SECONDS = 60.0


class Memory:
    """What a test does with it."""

    def __init__(self, store: StoreThreads, loop: LearningLoop, keeper: SnapshotKeeper) -> None:
        self.store = store
        self.loop = loop
        self.keeper = keeper
        self.passing: list[Event] = []
        self.running: asyncio.Task[None]

    async def teach(self, *ids: str, **other: tuple[str, str]) -> None:
        """Teaches facts of `FACTS` by id, and others, and waits until the queue is empty."""
        for fact_id, (question, answer) in ({i: FACTS[i] for i in ids} | other).items():
            new = NewFact(question=question, answer=answer, fact_id=fact_id.replace("_", "-"))
            await self.store.write(partial(_teach, new=new))
        self.loop.wake()
        await self.settle()

    async def teach_in_steps(
        self, fact_id: str, question: str, answer: str, max_steps: int
    ) -> None:
        """Teaches a fact with so few steps that it resists."""
        policy = replace(POLICY, max_steps=max_steps)
        await self.teach_new(
            NewFact(question=question, answer=answer, fact_id=fact_id, policy=policy)
        )

    async def teach_by(self, policy: Policy, fact_id: str) -> None:
        """Teaches a fact of `FACTS` by a policy of its own."""
        question, answer = FACTS[fact_id]
        await self.teach_new(
            NewFact(question=question, answer=answer, fact_id=fact_id, policy=policy)
        )

    async def teach_new(self, *new: NewFact) -> None:
        """Teaches facts that are given whole, and waits until the queue is empty."""
        for fact in new:
            await self.store.write(partial(_teach, new=fact))
        self.loop.wake()
        await self.settle()

    async def review(self, fact_id: str) -> ReviewOutcome:
        """Makes a fact due, and waits for its review."""
        before = await self.reviews(fact_id)
        await self.store.write(partial(_make_due, fact_id=fact_id))
        await self.loop.review_due()
        async with asyncio.timeout(SETTLE_SECONDS):
            while len(after := await self.reviews(fact_id)) == len(before):
                if self.running.done():
                    self.running.result()  # raises why it ended
                await asyncio.sleep(0.01)
        await self.settle()
        return after[-1]

    async def reviews(self, fact_id: str) -> list[ReviewOutcome]:
        """What the reviews of a fact came to."""
        found = await self.store.read(partial(reviews.of_fact, fact_id=fact_id))
        return [review.outcome for review in found]

    async def settle(self) -> None:
        """Waits until nothing is queued or being done, and a learner is there."""

        async def settled() -> bool:
            counts, operation = await self.store.read(
                lambda store: (count_by_state(store.connection), operations.oldest_open(store))
            )
            busy = counts[FactState.QUEUED] + counts[FactState.LEARNING]
            if busy or operation is not None:
                return False
            try:
                await self.loop.current()
            except LearnerUnavailableError:  # it died after the last row was written
                return False
            return True

        async with asyncio.timeout(SETTLE_SECONDS):
            while not await settled():
                if self.running.done():
                    self.running.result()  # raises why it ended
                await asyncio.sleep(0.01)

    async def forget(self, fact_id: str, erase: bool = False) -> Operation:
        """Forgets and waits; the operation with its proof."""
        operation = await self.store.write(
            partial(undo.request_forget, fact_id=fact_id, erase=erase)
        )
        return await self.done(operation)

    async def roll_back(self, to_version: int) -> Operation:
        """Rolls back and waits."""
        operation = await self.store.write(partial(undo.request_rollback, to_version=to_version))
        return await self.done(operation)

    async def done(self, operation: Operation) -> Operation:
        """Waits for an operation."""
        self.loop.wake()
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:
                operation = await self.store.read(
                    partial(operations.get, operation_id=operation.id)
                )
                if operation.state in (OperationState.DONE, OperationState.FAILED):
                    await self.settle()
                    return operation
                await asyncio.sleep(0.01)

    @property
    def learner(self) -> Any:
        """The real learner that serves."""
        assert isinstance(self.loop.learner, InProcessLearner)
        return self.loop.learner.learner

    def answer(self, question: str) -> str:
        """What the served model says."""
        *_, whole = self.learner.ask(question, 16)
        return str(whole.text)

    async def states(self) -> dict[str, str]:
        """State of each fact."""
        facts = await self.store.read(lambda store: store.facts(limit=1000))
        return {fact.id: fact.state.value for fact in facts}


def _teach(store: Any, new: NewFact) -> None:
    store.teach(new)


def _make_due(store: Any, fact_id: str) -> None:
    store.connection.execute("UPDATE facts SET due_depth = 0 WHERE id = ?", [fact_id])


@asynccontextmanager
async def running_memory(
    folder: Path,
    *,
    deaths: Deaths | None = None,
    every_updates: int = 0,
    accept_drift: bool = False,
    gated: bool = False,
    model: str = "tiny",
    on_event: Callable[[Event], None] | None = None,
    policy: Policy = POLICY,
) -> AsyncIterator[Memory]:
    """A memory in a folder; stopped on leaving, as the server would stop it."""
    folder.mkdir(parents=True, exist_ok=True)
    store = await StoreThreads.open(folder / "memory.db")
    snapshots = folder / "snapshots"
    start = partial(in_process, deaths or Deaths(), model)
    settings = LoopSettings(
        model=model, policy=policy, gated=gated, snapshots=snapshots, accept_drift=accept_drift
    )
    passing: list[Event] = []
    loop = LearningLoop(
        store,
        start,
        settings,
        Hooks(
            publish=passing.append,
            on_update=lambda update: keeper.updated(update),
            keep_only=lambda versions: keeper.keep_only(versions),
        ),
    )
    keeper = SnapshotKeeper(
        SnapshotSettings(folder=snapshots, every_updates=every_updates, every_seconds=0),
        lambda: loop.learner,
        recorded=recorded_in(store),
    )
    await keeper.look()
    memory = Memory(store, loop, keeper)
    memory.passing = passing
    memory.running = running = asyncio.create_task(loop.run())
    try:
        yield memory
    finally:
        loop.stop()
        try:
            await running
        finally:
            await keeper.finish()
            await store.close()
