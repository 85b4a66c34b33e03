"""H1: the text goes with the request, the weights follow; a crash in between loses nothing."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from agent.errors import LearnerUnavailableError, LearningFailedError
from agent.server.loop.undo.operation_runner import OperationRunner
from memory_store import erasure, operations, undo, unsearched
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    EventKind,
    FactState,
    LedgerKind,
    Operation,
    OperationState,
    Update,
)
from memory_store.writer import StoreThreads
from tests.store.builders import learning, ledger_rows, new_probe
from tests.undo.in_process import Deaths
from tests.undo.memory import SETTLE_SECONDS, Memory, running_memory

TAUGHT = ("fact-a", "fact-b", "fact-c", "fact-d")
# Of fact-b.
TEXTS = (b"blipland", b"telescope")


def require_no_text(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes().lower()
            assert not any(text in content for text in TEXTS), file


def requested(folder: Path, fact_id: str) -> Operation:
    """A kill right after the transaction of the request: nothing else happens."""
    with MemoryStore.open(folder / "memory.db") as store:
        return undo.request_forget(store, fact_id, erase=True)


async def without(folder: Path, *forgotten: str) -> str:
    """The digest of a memory that never saw some facts."""
    async with running_memory(folder) as never:
        await never.teach(*[fact_id for fact_id in TAUGHT if fact_id not in forgotten])
        return str(never.learner.digest)


async def result(memory: Memory, operation: Operation) -> Operation:
    return await memory.store.read(partial(operations.get, operation_id=operation.id))


async def searched(memory: Memory) -> None:
    """Waits until erased texts were looked for everywhere."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while await memory.store.read(
            lambda store: erasure.pending(store) or erasure.in_copies(store)
        ):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("snapshot", [True, False], ids=["snapshot", "no snapshot"])
@pytest.mark.parametrize("dies_at", [0, 1, 4])
async def test_a_crash_between_text_and_weights(
    tmp_path: Path, snapshot: bool, dies_at: int
) -> None:
    expected = await without(tmp_path / "never", "fact-b")
    data = tmp_path / "data"
    async with running_memory(data) as memory:
        await memory.teach(*TAUGHT)
        if snapshot:
            await memory.keeper.create()
    operation = requested(data, "fact-b")
    async with running_memory(data, deaths=Deaths(dies_at)) as memory:
        await memory.settle()
        done = await memory.done(operation)
        assert done.state is OperationState.DONE, done.message
        assert memory.learner.digest == expected
        assert await memory.states() == {
            "fact-a": "learned",
            "fact-b": "forgotten",
            "fact-c": "learned",
            "fact-d": "learned",
        }
        kinds = [
            row.kind for row in await memory.store.read(lambda store: ledger_rows(store.connection))
        ]
        # Without a snapshot the head could not be replayed: the version before the fact is served.
        assert (LedgerKind.ROLLBACK in kinds) is not snapshot
    require_no_text(data)


async def test_weights_that_cannot_be_rebuilt_keep_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: OperationRunner) -> Update:
        raise LearningFailedError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(OperationRunner, "run", fail)
        async with running_memory(tmp_path) as memory:
            await memory.teach(*TAUGHT)
            await memory.keeper.create()
            operation = await memory.forget("fact-b", erase=True)
            assert operation.state is OperationState.FAILED
            assert (await memory.states())["fact-b"] == FactState.SUPERSEDED
            await searched(memory)
    require_no_text(tmp_path)
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-e")  # rehearses nothing of it
        operation = await memory.forget("fact-b", erase=True)
        assert operation.state is OperationState.DONE
        assert (await memory.states())["fact-b"] == FactState.FORGOTTEN
    require_no_text(tmp_path)


def answered(store: MemoryStore, fact_id: str) -> None:
    """What the weights that still hold fact-b may answer to other questions: its text."""
    version, answer = store.model_version(), "Telescope, said Blipland"
    store.record_probes([new_probe(fact_id, question="", correct=False, answer=answer)], version)
    found = learning(answer_before=answer, answer_after="no")
    store.emit(EventKind.RETAUGHT, store.now(), fact_id=fact_id, learning=found)


@pytest.mark.parametrize("restarted", [True, False])
async def test_what_old_weights_answer_between_text_and_weights_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    """H1: after a restart the text is unknown, so that nobody can look for it once more."""
    run, may_run = OperationRunner.run, asyncio.Event()

    async def waiting(self: OperationRunner) -> Update:
        await may_run.wait()
        return await run(self)

    monkeypatch.setattr(OperationRunner, "run", waiting)
    async with running_memory(tmp_path) as memory:
        await memory.teach(*TAUGHT)
        await memory.keeper.create()
        operation = await memory.store.write(
            partial(undo.request_forget, fact_id="fact-b", erase=True)
        )
        memory.loop.wake()
        memory.loop.text_erased()
        await searched(memory)
        if not restarted:
            await memory.store.write(partial(answered, fact_id="fact-c"))
            may_run.set()
            assert (await memory.done(operation)).message == ""
    if restarted:
        with MemoryStore.open(tmp_path / "memory.db") as store:
            answered(store, "fact-c")
        async with running_memory(tmp_path) as memory:
            await searched(memory)
            may_run.set()
            assert "were removed unread" in (await memory.done(operation)).message
            events = await memory.store.read(MemoryStore.events)
            [kept] = [event.learning for event in events if event.kind is EventKind.RETAUGHT]
            assert kept is not None
            assert (kept.answer_before, kept.probability_after) == (
                "",
                learning().probability_after,
            )
            assert await memory.store.read(partial(unsearched.of_fact, fact_id="fact-b")) is None
    require_no_text(tmp_path)


async def test_the_text_goes_while_no_learner_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach(*TAUGHT)
    requested(tmp_path, "fact-b")

    def no_model(*_: object, **__: object) -> None:
        raise LearnerUnavailableError("the device is gone")

    monkeypatch.setattr("tests.undo.in_process.load", no_model)
    async with running_memory(tmp_path) as memory:
        await searched(memory)
        assert memory.loop.learner is None
    require_no_text(tmp_path)


async def test_a_cancelled_erase_keeps_no_text(tmp_path: Path) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach(*TAUGHT)
    operation = requested(tmp_path, "fact-b")
    with MemoryStore.open(tmp_path / "memory.db") as store:
        undo.cancel_operation(store, operation.id)
        assert erasure.pending(store)
    async with running_memory(tmp_path) as memory:
        await memory.settle()
        await searched(memory)
        assert memory.loop._cleaner.texts == {}
    require_no_text(tmp_path)


async def test_two_erasures_at_once(tmp_path: Path) -> None:
    expected = await without(tmp_path / "never", "fact-a", "fact-b")
    data = tmp_path / "data"
    async with running_memory(data) as memory:
        await memory.teach(*TAUGHT)
        await memory.keeper.create()
    first, second = requested(data, "fact-a"), requested(data, "fact-b")
    async with running_memory(data) as memory:
        await memory.settle()
        assert (await result(memory, first)).state is OperationState.DONE
        assert (await result(memory, second)).state is OperationState.DONE
        assert memory.learner.digest == expected
    require_no_text(data)


async def test_it_is_measured_while_the_process_still_knows_the_text(tmp_path: Path) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach(*TAUGHT)
        operation = await memory.forget("fact-b", erase=True)
        assert operation.proof is not None
        assert operation.proof["answers_it"] is False
        assert operation.proof["probability_after"] < 0.1
        assert memory.loop._cleaner.texts == {}  # and no longer than that
    require_no_text(tmp_path)


async def test_the_answer_that_it_had_replaced_counts_again(tmp_path: Path) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-c", newer=("Sky?", "Curtain"))
        assert (await memory.states())["fact-c"] == FactState.SUPERSEDED
        await memory.forget("newer", erase=True)
        assert await memory.states() == {"fact-c": "learned", "newer": "forgotten"}


async def test_copies_are_emptied_after_a_kill_between_tables_and_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H1: nothing else is left to say so when the operation was cancelled."""
    async with running_memory(tmp_path) as memory:
        await memory.teach(*TAUGHT)
    operation = requested(tmp_path, "fact-b")
    with MemoryStore.open(tmp_path / "memory.db") as store:
        undo.cancel_operation(store, operation.id)

    async def killed(_: StoreThreads) -> bool:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(StoreThreads, "empty_log", killed)
        async with running_memory(tmp_path) as memory:
            async with asyncio.timeout(SETTLE_SECONDS):
                while await memory.store.read(erasure.pending):
                    await asyncio.sleep(0.01)
    emptied = []
    empty_log = StoreThreads.empty_log

    async def seen(threads: StoreThreads) -> bool:
        emptied.append(threads.path)
        return await empty_log(threads)

    monkeypatch.setattr(StoreThreads, "empty_log", seen)
    async with running_memory(tmp_path) as memory:
        await searched(memory)
    assert emptied == [tmp_path / "memory.db"]
