"""A clean-up that fails holds nothing up, and is tried again (M8)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial
from typing import Any

import pytest

from agent.errors import LearnerUnavailableError
from agent.server.loop.undo import clean_up
from agent.server.loop.undo.erasure import remove_text
from memory_store import erasure, operations, undo
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, NewFact, OperationState
from tests.loop.conftest import World


class Locked:
    """Snapshots that cannot be removed until they are unlocked."""

    def __init__(self) -> None:
        self.locked = True
        self.attempts = 0

    async def keep_only(self, versions: Collection[int]) -> None:
        self.attempts += 1
        if self.locked:
            raise PermissionError("the snapshot is in use")


async def forgotten(world: World) -> int:
    """A fact that is forgotten, and cleaned up after; the id of the operation."""

    def forget(store: MemoryStore) -> int:
        fact = store.teach(NewFact(question="Sky?", answer="Piano", fact_id="sky")).fact
        operation = undo.request_forget(store, fact.id)
        assert undo.finish_if_not_held(store, operation.id)
        return operation.id

    return await world.store.write(forget)


async def test_it_is_tried_again_and_told_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M8: with a reason in the operation and the status, and one event."""
    monkeypatch.setattr(clean_up, "FIRST_PAUSE_SECONDS", 0.01)
    operation_id = await forgotten(world)
    snapshots = Locked()

    async def write(function: Any) -> Any:
        return await world.store.write(function)

    cleaner = clean_up.Cleaner(world.store, snapshots.keep_only, None, write)
    running = asyncio.create_task(cleaner.run())
    async with asyncio.timeout(10):
        while snapshots.attempts < 3:
            await asyncio.sleep(0.01)
    assert "the snapshot is in use" in cleaner.problem
    snapshots.locked = False
    read = partial(operations.get, operation_id=operation_id)
    async with asyncio.timeout(10):
        while (operation := await world.store.read(read)).state is not OperationState.DONE:
            await asyncio.sleep(0.01)
        while cleaner.problem:
            await asyncio.sleep(0.01)
    assert operation.message == ""
    assert cleaner.failures >= 2
    events = await world.store.read(MemoryStore.events)
    kinds = [event.kind for event in events]
    assert kinds.count(EventKind.CLEAN_UP_FAILED) == 1
    assert kinds[-1] is EventKind.FORGOTTEN
    running.cancel()
    await asyncio.wait([running])


async def test_many_erasures_read_the_tables_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Low: each erased text had a pass of its own over all tables."""

    def erase_all(store: MemoryStore) -> None:
        for number in range(5):
            fact = store.teach(NewFact(question=f"Who saw {number}?", answer="Piano")).fact
            undo.request_forget(store, fact.id, erase=True)

    await world.store.write(erase_all)
    looks: list[str] = []
    look = erasure.look

    def counted(store: MemoryStore, **rest: Any) -> erasure.Page:
        looks.append(rest["table"])
        return look(store, **rest)

    monkeypatch.setattr(erasure, "look", counted)
    assert await remove_text(world.store, None) == []
    assert sorted(looks) == sorted(erasure.TABLES)
    assert await world.store.read(erasure.pending) == []


class Remembering:
    """A learner that counts how often it is to drop its texts."""

    def __init__(self) -> None:
        self.dropped = 0

    async def forget_texts(self) -> None:
        self.dropped += 1
        raise LearnerUnavailableError("gone meanwhile")


@pytest.mark.parametrize("erase", [False, True])
async def test_the_learner_drops_an_erased_text_from_its_caches(world: World, erase: bool) -> None:
    """Low: erased text in the successor's caches. A learner that is gone keeps nothing."""

    def forget(store: MemoryStore) -> int:
        fact = store.teach(NewFact(question="Sky?", answer="Piano", fact_id="sky")).fact
        operation = undo.request_forget(store, fact.id, erase=erase)
        assert undo.finish_if_not_held(store, operation.id)
        return operation.id

    operation_id = await world.store.write(forget)
    learner: Any = Remembering()

    async def keep_all(versions: Collection[int]) -> None:
        pass

    done = asyncio.Event()

    async def write(function: Any) -> Any:
        result = await world.store.write(function)
        done.set()
        return result

    cleaner = clean_up.Cleaner(world.store, keep_all, None, write, lambda: learner)
    running = asyncio.create_task(cleaner.run())
    async with asyncio.timeout(10):
        await done.wait()
    running.cancel()
    await asyncio.wait([running])
    assert learner.dropped == erase
    read = partial(operations.get, operation_id=operation_id)
    assert (await world.store.read(read)).state is OperationState.DONE


async def test_an_error_that_nobody_expected_ends_no_clean_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M8: the erase would never have ended, and nothing would have said why."""
    monkeypatch.setattr(clean_up, "FIRST_PAUSE_SECONDS", 0.01)
    operation_id = await forgotten(world)
    faults = [KeyError("a fault of ours"), None]

    async def keep_only(versions: Collection[int]) -> None:
        if (error := faults.pop(0)) is not None:
            raise error

    async def write(function: Any) -> Any:
        return await world.store.write(function)

    cleaner = clean_up.Cleaner(world.store, keep_only, None, write)
    running = asyncio.create_task(cleaner.run())
    read = partial(operations.get, operation_id=operation_id)
    async with asyncio.timeout(10):
        while (await world.store.read(read)).state is not OperationState.DONE:
            await asyncio.sleep(0.01)
    assert cleaner.failures == 1
    running.cancel()
    await asyncio.wait([running])
