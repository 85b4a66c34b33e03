"""A thread that owns a store and runs operations on it, one transaction for each batch.

An fsync costs about the same for one fact as for two hundred. So the thread takes all waiting
operations, runs each in a savepoint of one transaction, commits once, and only then answers all of
them, with one call into the loop. So an answer always means: on disk. Consecutive facts are stored
together, even from different senders.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from memory_store.acceptance import Answer
from memory_store.errors import StoreClosedError, StoreFailedError, StoreUnusableError
from memory_store.store import MemoryStore
from memory_store.vocabulary import NewFact

T = TypeVar("T")

# About the pages that a fact adds to the write-ahead log, to know when to look at the log.
PAGES_AN_OPERATION = 16


@dataclass(frozen=True, slots=True)
class QueuedOperation:
    """Something to run, and the future of its result."""

    run: Callable[[MemoryStore], Any]
    answer: asyncio.Future[Any]

    @property
    def size(self) -> int:
        """Its share of the largest batch."""
        return 1


@dataclass(frozen=True, slots=True)
class QueuedFacts:
    """Facts to teach, and the future of their answers."""

    new_facts: Sequence[NewFact]
    answer: asyncio.Future[list[Answer]]

    @property
    def size(self) -> int:
        """Its share of the largest batch."""
        return len(self.new_facts)


Queued = QueuedOperation | QueuedFacts


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any = None
    error: Exception | None = None

    def settle(self, future: asyncio.Future[Any]) -> None:
        """Passes it to the waiting caller, unless that was cancelled."""
        if future.done():
            return
        if self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result(self.value)


class StoreThread:
    """A thread that owns a store and runs operations on it, one transaction for each batch."""

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        largest_batch: int,
        *,
        log_pages: int | None = None,
        max_queued: int | None = None,
        on_commit: Callable[[int], None] | None = None,
        on_fatal: Callable[[StoreFailedError], None] | None = None,
    ) -> None:
        self._name = name
        self._loop = loop
        self._largest_batch = largest_batch
        self._log_pages = log_pages  # None for a reader, which leaves the log alone
        self._max_queued = max_queued
        self._on_commit = on_commit
        self._on_fatal = on_fatal
        self._gathered: list[Queued] = []  # only the loop reads and writes it
        self._waiting: queue.SimpleQueue[list[Queued] | None] = queue.SimpleQueue()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._closing = False
        self._unseen = 0  # operations since the log was looked at; only the thread's, as below
        self._sequence = 0  # of the newest event; only the thread's, as below
        self._failure: StoreFailedError | None = None  # only the thread reads and writes it

    # -- On the loop -------------------------------------------------------------------------

    async def start(self, open_store: Callable[[], MemoryStore]) -> None:
        """Opens the store in the new thread; raises what that raises."""
        opened: asyncio.Future[None] = self._loop.create_future()
        # A daemon, so that a process that forgot `close` can end; commits survive that.
        self._thread = threading.Thread(
            target=self._live, args=(open_store, opened), name=self._name, daemon=True
        )
        self._thread.start()
        await asyncio.wait([opened])
        if opened.exception() is not None:
            self._thread.join()  # it has ended
        opened.result()

    def new_answer(self) -> asyncio.Future[Any]:
        """Makes the future of an operation's result."""
        return self._loop.create_future()

    async def submit(self, operation: Callable[[MemoryStore], T]) -> T:
        """Queues an operation, and waits for its result."""
        answer: asyncio.Future[T] = self.queue(QueuedOperation(operation, self.new_answer()))
        return await answer

    def queue(self, operation: Queued) -> asyncio.Future[Any]:
        """Queues an operation; returns the future of its result."""
        if self._closing:
            raise StoreClosedError("The memory is closed: the server is stopping. Try again later.")
        if not self._gathered:
            # What arrives in the same round of the loop is handed over together. Otherwise the
            # thread would wake for the first, and contend with the loop for the interpreter.
            self._loop.call_soon(self._hand_over)
        self._gathered.append(operation)
        return operation.answer

    def _hand_over(self) -> None:
        if self._gathered:
            self._waiting.put(self._gathered)
            self._gathered = []

    async def close(self) -> None:
        """Ends the thread after all queued operations; raises what closing the store raised."""
        if not self._closing:
            self._closing = True
            self._hand_over()
            self._waiting.put(None)  # the end
        await asyncio.wait([self._ended])
        self._thread.join()  # it is at its end already
        self._ended.result()

    def _deliver(
        self,
        batch: Sequence[Queued],
        outcomes: Sequence[_Outcome],
        committed: bool,
        sequence: int,
        fatal: StoreFailedError | None,
    ) -> None:
        for operation, outcome in zip(batch, outcomes, strict=True):
            outcome.settle(operation.answer)
        if committed and self._on_commit is not None:
            self._on_commit(sequence)
        if fatal is not None and self._on_fatal is not None:
            self._on_fatal(fatal)

    # -- In the thread -----------------------------------------------------------------------

    def _live(self, open_store: Callable[[], MemoryStore], opened: asyncio.Future[None]) -> None:
        opening = _attempt(open_store)
        self._call(_Outcome(error=opening.error).settle, opened)
        if opening.error is not None:
            return
        store: MemoryStore = opening.value
        waiting: deque[Queued] = deque()
        going_on = True
        while going_on or waiting:
            going_on = self._take(waiting) and going_on
            batch = self._next_batch(waiting)
            if batch:
                self._run(store, batch)
        self._call(_attempt(lambda: self._close_store(store)).settle, self._ended)

    def _take(self, waiting: deque[Queued]) -> bool:
        """Takes what was handed over; waits if nothing else is queued. False at the end."""
        with contextlib.suppress(queue.Empty):
            while (more := self._waiting.get(block=not waiting)) is not None:
                waiting.extend(more)
            return False
        return True

    def _next_batch(self, waiting: deque[Queued]) -> list[Queued]:
        """Takes the first operations that fit a batch; a too large one is a batch by itself."""
        batch: list[Queued] = []
        size = 0
        while waiting and (not batch or size + waiting[0].size <= self._largest_batch):
            size += waiting[0].size
            batch.append(waiting.popleft())
        return batch

    def _run(self, store: MemoryStore, batch: Sequence[Queued]) -> None:
        commit = _attempt(lambda: self._commit(store, batch))
        error = commit.error
        fatal = None
        if isinstance(error, StoreFailedError) and self._failure is None:
            self._failure = fatal = error
        # A copy for each: one error that is raised in many places collects all tracebacks.
        outcomes = (
            commit.value if error is None else [_Outcome(error=copy.copy(error)) for _ in batch]
        )
        self._call(self._deliver, batch, outcomes, error is None, self._sequence, fatal)

    def _commit(self, store: MemoryStore, batch: Sequence[Queued]) -> list[_Outcome]:
        """Runs a batch as one transaction. If it raises, the whole batch counts as failed."""
        if self._failure is not None:
            raise self._failure
        outcomes = self._teach_all(store, batch) or self._run_all(store, batch)
        # Checked before the answers: nothing is acknowledged in files that were replaced, or after
        # a failed sync.
        if self._log_pages is not None:
            store.connection.require_in_place()
        self._shorten_log(store, sum(each.size for each in batch))
        if self._on_commit is not None:
            self._sequence = store.last_event_sequence()
        return outcomes

    def _teach_all(self, store: MemoryStore, batch: Sequence[Queued]) -> list[_Outcome]:
        """Stores a batch of facts only, the usual case; no outcomes if it is another one."""
        if not all(isinstance(each, QueuedFacts) for each in batch):
            return []
        try:
            with store.transaction():
                return _taught(store, cast(Sequence[QueuedFacts], batch), self._max_queued)
        except StoreUnusableError:
            raise
        except Exception:  # noqa: BLE001 - running one by one shows which operation failed
            return []

    def _run_all(self, store: MemoryStore, batch: Sequence[Queued]) -> list[_Outcome]:
        """Each in a savepoint of one transaction."""
        outcomes: list[_Outcome] = []
        with store.transaction():
            for each in batch:
                outcomes.append(_alone(store, partial(self._run_one, store, each)))
        return outcomes

    def _run_one(self, store: MemoryStore, operation: Queued) -> Any:
        with store.transaction():
            if isinstance(operation, QueuedOperation):
                return operation.run(store)
            [outcome] = _taught(store, [operation], self._max_queued)
            return outcome.value

    def _shorten_log(self, store: MemoryStore, operations: int) -> None:
        if self._log_pages is None:
            return
        self._unseen += operations
        if self._unseen * PAGES_AN_OPERATION < self._log_pages:
            return
        self._unseen = 0
        try:
            store.connection.shorten_log(self._log_pages)
        except StoreFailedError:
            raise
        except StoreUnusableError:
            pass  # a full disk: the log keeps what was committed, and the next batch tries again

    def _close_store(self, store: MemoryStore) -> None:
        with contextlib.closing(store):
            if self._log_pages is not None and self._failure is None:
                store.connection.checkpoint()

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        # RuntimeError: the loop is closed, and with it all who waited.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)


def _taught(
    store: MemoryStore, batch: Sequence[QueuedFacts], max_queued: int | None
) -> list[_Outcome]:
    """Stores the facts of several callers, and splits the answers."""
    answers = iter(store.teach_many([new for each in batch for new in each.new_facts], max_queued))
    return [_Outcome(list(itertools.islice(answers, each.size))) for each in batch]


def _alone(store: MemoryStore, atomic: Callable[[], Any]) -> _Outcome:
    """Runs something atomic.

    Raises:
        StoreUnusableError: it failed, and SQLite ended the whole transaction.
    """
    outcome = _attempt(atomic)
    if isinstance(outcome.error, StoreFailedError):
        raise outcome.error
    if not store.connection.in_transaction:
        # Continuing would commit the rest of the batch statement by statement.
        raise StoreUnusableError(
            "SQLite gave up the transaction, and nothing of it was stored: repeat the "
            f"request. The cause: {outcome.error}"
        )
    return outcome


def _attempt(function: Callable[[], Any]) -> _Outcome:
    """Runs something for another thread, which gets any error."""
    try:
        return _Outcome(value=function())
    except Exception as error:  # noqa: BLE001 - none may be lost between threads
        return _Outcome(error=error)
