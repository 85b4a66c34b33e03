"""The threads: group commit, isolation of its operations, failures, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from memory_store.connection import Connection
from memory_store.errors import (
    FactNotFoundError,
    StoreClosedError,
    StoreFailedError,
    StoreUnusableError,
)
from memory_store.facts import count_by_state
from memory_store.store import MemoryStore
from memory_store.vocabulary import Accepted, FactState, NewFact
from memory_store.writer import LARGEST_BATCH, StoreThreads
from tests.store import integrity
from tests.store.builders import new_fact


class Watched:
    """Threads on a database, and what they called back."""

    def __init__(self) -> None:
        self.commits = 0
        self.sequence = 0
        self.fatal: list[StoreFailedError] = []
        self.threads: StoreThreads

    def committed(self, sequence: int) -> None:
        self.commits += 1
        self.sequence = sequence

    async def teach(self, question: str) -> str:
        accepted = await self.threads.write(lambda store: store.teach(new_fact(question)))
        return accepted.fact.id

    async def trace(self) -> list[str]:
        """All SQL that the writer runs from now on."""
        statements: list[str] = []
        await self.threads.write(
            lambda store: store.connection.database.conn.set_trace_callback(statements.append)
        )
        return statements

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keeps the writer busy inside, so that what is written forms one batch after it."""
        busy, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def wait(store: MemoryStore) -> None:
            loop.call_soon_threadsafe(busy.set)
            assert go_on.wait(10)

        task = asyncio.create_task(self.threads.write(wait))
        await busy.wait()
        try:
            yield
            await asyncio.sleep(0)  # tasks made inside get to the queue
        finally:
            go_on.set()
            await task


@pytest.fixture
async def watched(path: Path) -> AsyncIterator[Watched]:
    watched = Watched()
    watched.threads = await StoreThreads.open(
        path, on_commit=watched.committed, on_fatal=watched.fatal.append
    )
    yield watched
    await watched.threads.close()


@pytest.mark.asyncio
async def test_many_writes_share_a_commit(watched: Watched) -> None:
    writes = 2 * LARGEST_BATCH + 1
    statements = await watched.trace()
    async with watched.held():
        tasks = [asyncio.create_task(watched.teach(f"q{number}")) for number in range(writes)]
    ids = await asyncio.gather(*tasks)
    assert len(set(ids)) == writes
    # Of `trace`, of `held`, and of two full batches and a rest.
    assert statements.count("COMMIT") == watched.commits == 1 + 1 + 3
    assert (await watched.threads.read(lambda store: count_by_state(store.connection)))[
        FactState.QUEUED
    ] == writes


@pytest.mark.asyncio
async def test_facts_of_many_callers_are_taught_together(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    teach_many = MemoryStore.teach_many

    def counted(store: MemoryStore, new_facts: Sequence[NewFact], *rest: int | None):
        sizes.append(len(new_facts))
        return teach_many(store, new_facts, *rest)

    monkeypatch.setattr(MemoryStore, "teach_many", counted)
    async with watched.held():
        one = [watched.threads.teach([new_fact(f"q{number}")]) for number in range(100)]
        many = watched.threads.teach([new_fact(f"p{number}") for number in range(300)])
        last = watched.threads.teach([new_fact("q0"), new_fact("q1")])
    answers = [answer for each in one for answer in await each]
    assert all(isinstance(answer, Accepted) and answer.created for answer in answers)
    assert len(await many) == 300
    assert [isinstance(a, Accepted) and a.created for a in await last] == [False, False]
    # As many as fit into a commit; one that fits nowhere has its own.
    assert sizes == [100, 300, 2]


@pytest.mark.asyncio
async def test_facts_that_cannot_be_taught_fail_alone(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach_many = MemoryStore.teach_many

    def broken(store: MemoryStore, new_facts: Sequence[NewFact], *rest: int | None):
        answers = teach_many(store, new_facts, *rest)
        if any(new.question == "broken" for new in new_facts):
            raise ZeroDivisionError("mine")
        return answers

    monkeypatch.setattr(MemoryStore, "teach_many", broken)
    async with watched.held():
        taught = [watched.threads.teach([new_fact(q)]) for q in ("before", "broken", "after")]
    outcomes = await asyncio.gather(*taught, return_exceptions=True)
    assert isinstance(outcomes[1], ZeroDivisionError)
    facts = await watched.threads.read(MemoryStore.facts)
    assert [fact.question for fact in facts] == ["before", "after"]


@pytest.mark.asyncio
async def test_facts_are_taught_though_their_caller_left(watched: Watched) -> None:
    async with watched.held():
        watched.threads.teach([new_fact("left")]).cancel()
        stayed = watched.threads.teach([new_fact("stayed")])
    await stayed
    facts = await watched.threads.read(MemoryStore.facts)
    assert [fact.question for fact in facts] == ["left", "stayed"]


@pytest.mark.asyncio
async def test_writes_keep_their_order(watched: Watched) -> None:
    async with watched.held():
        tasks = [asyncio.create_task(watched.teach(f"q{number}")) for number in range(20)]
    ids = await asyncio.gather(*tasks)
    assert [fact.id for fact in await watched.threads.read(MemoryStore.facts)] == ids


@pytest.mark.asyncio
async def test_a_failing_write_fails_alone(watched: Watched) -> None:
    def fail(store: MemoryStore) -> None:
        store.teach(new_fact("half done"))
        raise ZeroDivisionError("mine")

    async with watched.held():
        tasks = [
            asyncio.create_task(watched.teach("before")),
            asyncio.create_task(watched.threads.write(fail)),
            asyncio.create_task(watched.threads.write(lambda store: store.release("nobody"))),
            asyncio.create_task(watched.teach("after")),
        ]
    commits = watched.commits
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[1], ZeroDivisionError)
    assert str(outcomes[1]) == "mine"
    assert isinstance(outcomes[2], FactNotFoundError)
    assert watched.commits == commits + 1
    facts = await watched.threads.read(MemoryStore.facts)
    assert [fact.question for fact in facts] == ["before", "after"]


@pytest.mark.asyncio
async def test_a_read_sees_every_answered_write_and_no_other(watched: Watched) -> None:
    fact_id = await watched.teach("q")
    assert (await watched.threads.read(lambda store: store.fact(fact_id))).id == fact_id
    with pytest.raises(FactNotFoundError):
        await watched.threads.read(lambda store: store.fact("nobody"))
    with pytest.raises(StoreUnusableError):
        await watched.threads.read(lambda store: store.teach(new_fact("other")))
    async with watched.held():  # readers do not wait for the writer
        assert len(await watched.threads.read(MemoryStore.facts)) == 1


@pytest.mark.asyncio
async def test_a_write_whose_caller_left_still_happens(watched: Watched) -> None:
    async with watched.held():
        left = asyncio.create_task(watched.teach("left"))
        stayed = asyncio.create_task(watched.teach("stayed"))
        await asyncio.sleep(0)
        left.cancel()
    await stayed
    assert left.cancelled()
    facts = await watched.threads.read(MemoryStore.facts)
    assert [fact.question for fact in facts] == ["left", "stayed"]


@pytest.mark.asyncio
async def test_watchers_wake_after_the_answers(path: Path) -> None:
    order: list[str] = []
    threads = await StoreThreads.open(
        path, on_commit=lambda sequence: order.append(f"{answer.done()}")
    )
    answer: asyncio.Future[object] = asyncio.ensure_future(asyncio.sleep(0))
    await answer
    await threads.write(lambda store: store.teach(new_fact()))
    assert order == ["True"]
    await threads.close()


@contextlib.contextmanager
def failing_disk(largest_file: int) -> Iterator[None]:
    """No file of this process can grow past a size: SQLite's write gets EFBIG, an I/O error."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.asyncio
async def test_nothing_is_acknowledged_if_the_commit_fails(watched: Watched, path: Path) -> None:
    kept = await watched.teach("kept")
    log = path.with_name(path.name + "-wal")
    commits = watched.commits
    with failing_disk(log.stat().st_size):
        async with watched.held():
            tasks = [asyncio.create_task(watched.teach(f"lost{number}")) for number in range(5)]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreFailedError] * 5
    assert len({id(outcome) for outcome in outcomes}) == 5
    assert watched.commits == commits + 1  # of `held`: those who watch are not woken for nothing
    assert len(watched.fatal) == 1
    # The disk works again, but who knows what it lost: nothing is written any more.
    with pytest.raises(StoreFailedError):
        await watched.teach("too late")
    assert len(watched.fatal) == 1
    await watched.threads.close()
    with MemoryStore.open(path) as store:
        assert [fact.id for fact in store.facts()] == [kept]
        assert integrity.problems(store.connection) == []


@pytest.mark.asyncio
async def test_a_full_disk_fails_writes_until_there_is_space(watched: Watched) -> None:
    def limit_pages(extra: int):
        def operation(store: MemoryStore) -> None:
            pages = store.connection.execute("PRAGMA page_count")[0]["page_count"]
            store.connection.execute(f"PRAGMA max_page_count = {pages + extra}")

        return operation

    await watched.threads.write(limit_pages(0))
    with pytest.raises(StoreUnusableError, match="No space"):
        await watched.teach("q" * 50_000)
    assert watched.fatal == []
    await watched.threads.write(limit_pages(100))
    await watched.teach("q" * 50_000)


@pytest.mark.asyncio
async def test_a_batch_whose_transaction_is_gone_fails_whole(watched: Watched) -> None:
    """Some errors end SQLite's transaction; what follows must not be committed by statement."""

    def lose_the_transaction(store: MemoryStore) -> None:
        store.connection.execute("ROLLBACK")
        raise ZeroDivisionError("the cause")

    async with watched.held():
        tasks = [
            asyncio.create_task(watched.teach("before")),
            asyncio.create_task(watched.threads.write(lose_the_transaction)),
            asyncio.create_task(watched.teach("after")),
        ]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnusableError] * 3
    assert "the cause" in str(outcomes[0])
    assert await watched.threads.read(MemoryStore.facts) == []
    await watched.teach("goes on")


@pytest.mark.asyncio
async def test_closing_carries_out_what_waits(watched: Watched, path: Path) -> None:
    async with watched.held():
        tasks = [asyncio.create_task(watched.teach(f"q{number}")) for number in range(300)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(watched.threads.close())
        await asyncio.sleep(0.01)  # the reader ends first
    await asyncio.gather(closing, *tasks)
    for call in (watched.threads.write, watched.threads.read):
        with pytest.raises(StoreClosedError, match="closed"):
            await call(lambda store: count_by_state(store.connection))
    await watched.threads.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # the log is gone
    with MemoryStore.open(path) as store:
        assert count_by_state(store.connection)[FactState.QUEUED] == 300
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("memory-")]


@pytest.mark.asyncio
async def test_errors_of_opening_reach_the_caller(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusableError, match="missing"):
        await StoreThreads.open(tmp_path / "missing" / "memory.db")

    def no_reader(path: Path, *, read_only: bool = False) -> MemoryStore:
        if read_only:
            raise StoreUnusableError("no reader")
        return MemoryStore.open(path)

    with pytest.raises(StoreUnusableError, match="no reader"):
        await StoreThreads.open(tmp_path / "memory.db", open_store=no_reader)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("memory-")]


@pytest.mark.asyncio
async def test_the_log_can_be_emptied_while_the_store_is_in_use(
    watched: Watched, path: Path
) -> None:
    log = path.with_name(path.name + "-wal")
    await watched.teach("Sky?")
    assert log.stat().st_size > 0
    assert await watched.threads.empty_log()
    assert log.stat().st_size == 0
    await watched.teach("Gem?")
    assert (await watched.threads.read(lambda store: count_by_state(store.connection)))[
        FactState.QUEUED
    ] == 2


@pytest.mark.asyncio
async def test_closing_waits_for_a_log_that_is_being_emptied(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection would keep the log, and what was erased in it, on the disk."""
    threads = await StoreThreads.open(path)
    await threads.write(lambda store: store.teach(new_fact("Sky?")))
    begun, go_on = threading.Event(), threading.Event()
    checkpoint = Connection.checkpoint

    def held_up(connection: Connection) -> bool:
        if threading.current_thread().name.startswith("memory-"):
            return checkpoint(connection)
        begun.set()
        assert go_on.wait(60)
        return True

    monkeypatch.setattr(Connection, "checkpoint", held_up)
    emptying = asyncio.ensure_future(threads.empty_log())
    await asyncio.to_thread(begun.wait)
    emptying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await emptying
    closing = asyncio.ensure_future(threads.close())
    await asyncio.wait([closing], timeout=0.1)
    assert not closing.done()
    go_on.set()
    await closing
    assert not path.with_name(path.name + "-wal").exists()


def file_sizes(path: Path) -> tuple[int, int]:
    """Of the database, and of its write-ahead log."""
    return path.stat().st_size, path.with_name(path.name + "-wal").stat().st_size


@pytest.mark.asyncio
async def test_a_log_that_has_grown_is_moved_into_the_database(path: Path) -> None:
    threads = await StoreThreads.open(path, log_pages=50)

    async def teach(what: str) -> None:
        for number in range(50):
            new = new_fact(f"{what} {number}")
            await threads.write(partial(MemoryStore.teach, new=new))

    await teach("first")
    database, log = file_sizes(path)
    assert log < 100 * 4200  # what one commit adds is less than was allowed
    with MemoryStore.open(path, read_only=True) as reader, reader.transaction():
        assert len(reader.facts()) == 50
        await teach("while somebody reads")  # which needs the log: that is no error
        assert len(reader.facts()) == 50
        assert file_sizes(path)[1] > log
    await teach("then")
    grown, log = file_sizes(path)
    assert grown > database
    await teach("more")
    assert file_sizes(path)[1] == log
    await threads.close()


@pytest.mark.asyncio
async def test_a_checkpoint_that_fails_is_fatal(path: Path) -> None:
    """SQLite tells nobody of one of its own that fails."""
    fatal: list[StoreFailedError] = []
    threads = await StoreThreads.open(path, on_fatal=fatal.append, log_pages=20)
    kept = await threads.write(lambda store: store.teach(new_fact("q" * 400_000)))
    assert await threads.empty_log()
    with failing_disk(file_sizes(path)[0]):  # there is room for the log
        with pytest.raises(StoreFailedError):
            await threads.write(lambda store: store.teach(new_fact("p" * 200_000)))
        assert len(fatal) == 1
        with pytest.raises(StoreFailedError):
            await threads.empty_log()
        assert len(fatal) == 2
    with pytest.raises(StoreFailedError):
        await threads.write(lambda store: store.teach(new_fact("too late")))
    await threads.close()
    with MemoryStore.open(path) as store:
        assert [fact.id for fact in store.facts()][:1] == [kept.fact.id]
        assert len(store.facts()) == 2  # it was committed, but nobody was told so
        assert integrity.problems(store.connection) == []


@pytest.mark.asyncio
async def test_a_checkpoint_that_finds_the_disk_full_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def full(connection: Connection, pages: int) -> None:
        attempts.append(pages)
        raise StoreUnusableError("no space")

    monkeypatch.setattr(Connection, "shorten_log", full)
    fatal: list[StoreFailedError] = []
    threads = await StoreThreads.open(path, on_fatal=fatal.append, log_pages=1)
    for number in range(3):
        await threads.write(partial(MemoryStore.teach, new=new_fact(f"q{number}")))
    assert len(attempts) == 3
    assert fatal == []
    assert len(await threads.read(MemoryStore.facts)) == 3
    await threads.close()
