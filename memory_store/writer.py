"""The store behind an asyncio loop: a thread that writes and one that reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TypeVar

from memory_store import head_switch as switching
from memory_store.acceptance import Answer
from memory_store.connection import not_in_place
from memory_store.errors import (
    MemoryStoreError,
    StoreClosedError,
    StoreFailedError,
    StoreUnusableError,
)
from memory_store.store import MemoryStore
from memory_store.store_thread import QueuedFacts, StoreThread
from memory_store.vocabulary import NewFact

T = TypeVar("T")

# The most operations or facts of a commit: bounds the wait of the first.
LARGEST_BATCH = 256
LOG_PAGES = 1_000  # of 4 KiB, in the write-ahead log before it is moved into the database
SWITCH_RETRY_SECONDS = 1.0  # before a step that found the disk full is repeated


class StoreThreads:
    """Access to a store from one asyncio loop. Every method belongs to that loop."""

    def __init__(
        self,
        path: Path,
        writer: StoreThread,
        reader: StoreThread,
        on_fatal: Callable[[StoreFailedError], None] | None = None,
    ) -> None:
        """Uses two running threads; see `open`."""
        self._path = path
        self._writer = writer
        self._reader = reader
        self._on_fatal = on_fatal
        self._readable = asyncio.Event()
        self._readable.set()
        self._finishing: asyncio.Task[None] | None = None
        self._emptying: set[asyncio.Future[bool]] = set()

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        on_commit: Callable[[int], None] | None = None,
        on_fatal: Callable[[StoreFailedError], None] | None = None,
        open_store: Callable[..., MemoryStore] = MemoryStore.open,
        log_pages: int = LOG_PAGES,
        max_queued: int | None = None,
    ) -> Self:
        """Opens the database, making it if needed, and starts both threads.

        Args:
            path: of the database file.
            on_commit: called on the loop after each commit, once a batch, after its answers, with
                the sequence number of the newest event.
            on_fatal: called on the loop when disk or database failed. The process must exit. The
                failed thread refuses all that follows, because SQLite may continue after a failed
                fsync.
            open_store: opens a store as `MemoryStore.open` does.
            log_pages: at this size, the write-ahead log is moved into the database.
            max_queued: refuse new facts while this many wait to be learned; None: never.

        Raises:
            StoreUnusableError: as `MemoryStore.open`.
        """
        loop = asyncio.get_running_loop()
        writer = StoreThread(
            "memory-writer",
            loop,
            LARGEST_BATCH,
            log_pages=log_pages,
            max_queued=max_queued,
            on_commit=on_commit,
            on_fatal=on_fatal,
        )
        await writer.start(lambda: open_store(path))
        reader = StoreThread("memory-reader", loop, largest_batch=1, on_fatal=on_fatal)
        try:
            await reader.start(lambda: open_store(path, read_only=True))
        except MemoryStoreError:
            await writer.close()
            raise
        if await reader.submit(switching.in_progress):  # it was killed in the middle
            while await writer.submit(switching.go_on):
                pass
        return cls(path, writer, reader, on_fatal)

    @property
    def path(self) -> Path:
        """Of the database file."""
        return self._path

    async def write(self, operation: Callable[[MemoryStore], T]) -> T:
        """Runs an operation on the writing store; returns once it is durable.

        It is atomic: if it raises, nothing of it is stored, and the rest of its batch is not
        affected. It runs even if the caller is cancelled.

        Raises:
            StoreUnusableError: the commit failed; nothing of the operation was stored.
            StoreFailedError: disk or database failed, now or before.
            StoreClosedError: `close` was called before.
        """
        return await self._writer.submit(operation)

    def teach(self, new_facts: Sequence[NewFact]) -> asyncio.Future[list[Answer]]:
        """Queues facts; the future has an answer for each, in order, once they are durable.

        The answers are those of `MemoryStore.teach_many`, and the errors as in `write`. They are
        queued on return, and stored even if the future is abandoned.

        Raises:
            StoreClosedError: `close` was called before.
        """
        return self._writer.queue(QueuedFacts(new_facts, self._writer.new_answer()))

    async def read(self, operation: Callable[[MemoryStore], T]) -> T:
        """Runs queries on one view of the memory, which includes all that was acknowledged.

        Raises:
            StoreUnusableError: the database cannot be read.
            StoreClosedError: `close` was called before.
        """
        await self._readable.wait()
        return await self._reader.submit(operation)

    @property
    def is_switching(self) -> bool:
        """Whether readers wait for the end of a switch."""
        return not self._readable.is_set()

    @asynccontextmanager
    async def switching(self) -> AsyncIterator[None]:
        """Blocks readers while an operation gives facts their new states.

        Facts are accepted meanwhile. Leaving finishes the switch that began inside, in short steps,
        even if the caller is cancelled. If the process is killed, the next start finishes it.
        """
        self._readable.clear()
        try:
            yield
        finally:
            # It does not end with the caller: no read or other switch may come in between.
            self._finishing = asyncio.create_task(self._finish_switch())
            await asyncio.shield(self._finishing)

    async def _finish_switch(self) -> None:
        try:
            while True:
                try:
                    if not await self.write(switching.go_on):
                        return
                except (StoreFailedError, StoreClosedError):
                    return  # the process ends; the next start finishes it
                except StoreUnusableError:  # a full disk, which may be emptied
                    if not await self._reader.submit(switching.in_progress):
                        return  # it did not begin
                    await asyncio.sleep(SWITCH_RETRY_SECONDS)
        finally:
            self._readable.set()

    async def empty_log(self) -> bool:
        """Moves the write-ahead log into the database file, so that nothing removed stays in it.

        It continues if the caller is cancelled, and `close` waits for it.

        Returns:
            False if a reader prevented it; then the next close empties the log.

        Raises:
            StoreUnusableError: it could not be moved.
            StoreFailedError: disk or database failed; `on_fatal` was called.
        """
        identity = await self.read(_identity_in_place)

        def empty() -> bool:
            # On a connection of its own: the writer's is inside a transaction when it runs.
            with MemoryStore.open(self._path, must_exist=True) as store:
                if store.connection.file_identity != identity:
                    raise not_in_place(self._path)
                return store.connection.checkpoint()

        emptying = asyncio.ensure_future(asyncio.to_thread(empty))
        self._emptying.add(emptying)
        emptying.add_done_callback(self._emptying.discard)
        try:
            return await asyncio.shield(emptying)
        except StoreFailedError as error:
            if self._on_fatal is not None:
                self._on_fatal(error)
            raise

    async def close(self) -> None:
        """Runs all queued operations, empties the write-ahead log, and closes; may be repeated.

        Raises:
            StoreUnusableError: the log could not be emptied; nothing that was answered is lost.
        """
        try:
            # First: an open connection keeps the writer's close from emptying the log.
            await asyncio.gather(*self._emptying, return_exceptions=True)
            await self._reader.close()
        finally:
            await self._writer.close()
            if self._finishing is not None:
                self._finishing.cancel()
                await asyncio.gather(self._finishing, return_exceptions=True)


def _identity_in_place(store: MemoryStore) -> tuple[int, int] | None:
    store.connection.require_in_place()
    return store.connection.file_identity
