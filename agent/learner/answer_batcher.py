"""Answers the questions of many clients in batches.

A forward pass costs about as much for eight questions as for one. So all questions that wait when
the device is free are answered together. Later questions form the next batch, which alternates
with the first, token by token.

The memory of all batches together is limited: a question without room waits until another answer
ends. If memory still runs out, the batch is dropped. Its questions that have sent no text yet wait
again, and batches are half as large for a while.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from agent.errors import InvalidFactError, MemoryShortageError
from agent.learner.core import Learner
from agent.learner.device_thread import DeviceThread, Priority
from agent.learner.engine.kv_cache import is_out_of_memory
from agent.learner.inference.generation import PendingQuestion
from agent.teaching.types import Generated

# Limits of all key-value caches together: rows, and tokens (questions and the longest answers that
# they may get).
MOST_ROWS = 32
MOST_TOKENS = 32 * 512

# A piece of text, the whole answer, or an error.
Said: TypeAlias = str | Generated | Exception


@dataclass(kw_only=True, slots=True, eq=False)
class _Waiting:
    asked: PendingQuestion
    version: int = 0  # of the weights that answer
    tokens: int = 0  # the most that its row may have
    said: asyncio.Queue[Said] = field(default_factory=asyncio.Queue)
    started: bool = False  # whether some text was sent
    retried: bool = False


class AnswerBatcher:
    """Answers with the served weights. Has priority over all other work on the device.

    `ask` belongs to one asyncio loop.
    """

    def __init__(self, learner: Learner, device: DeviceThread) -> None:
        self._learner = learner
        self._device = device
        # Filled on the event loop, emptied on the device thread.
        self._waiting: deque[_Waiting] = deque()
        self._called = False  # a batch is on its way to the device
        self._batches: set[asyncio.Task[None]] = set()
        # The questions being answered. Changed on the device thread only.
        self._live: set[_Waiting] = set()
        self._full = False  # no room for the first in the queue until an answer ends
        self._most_rows = MOST_ROWS

    async def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        """Yields pieces of the answer and then the whole, each with the model version.

        One version gives the whole answer. Closing the generator removes the question from its
        batch before the next token.

        Raises:
            InvalidFactError: the question leaves no room for an answer.
            MemoryShortageError: memory ran out.
        """
        waiting = _Waiting(asked=PendingQuestion(question=question, max_new_tokens=max_new_tokens))
        self._waiting.append(waiting)
        self._call()
        try:
            while True:
                said = await waiting.said.get()
                if isinstance(said, Exception):
                    raise said
                yield said, waiting.version
                if isinstance(said, Generated):
                    return
        finally:
            waiting.asked.gone.set()

    def _call(self) -> None:
        """Starts a batch if questions wait and there may be room for one."""
        if self._waiting and not self._called and not self._full:
            self._called = True
            batch = asyncio.create_task(self._answer())
            self._batches.add(batch)
            batch.add_done_callback(self._ended)

    def _ended(self, batch: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        if not batch.cancelled():
            self._call()

    async def _answer(self) -> None:
        """Answers one batch: all questions that wait when the device is free, and fit."""
        batch: list[_Waiting] = []
        begun = False
        try:
            async for new in self._device.stream(Priority.ANSWER, lambda: self._begin(batch)):
                if not begun:
                    begun, self._called = True, False
                for waiting, said in new:
                    waiting.started = True
                    waiting.said.put_nowait(said)
                self._call()  # others may wait, and there may be room now
        except Exception as error:  # noqa: BLE001 - passed on to the callers
            if not begun:  # the device is closed
                self._called = False
                batch += self._waiting
                self._waiting.clear()
            if is_out_of_memory(error):
                await self._after_shortage(batch, error)
            else:
                for waiting in batch:
                    waiting.said.put_nowait(error)
        else:
            self._most_rows = min(2 * self._most_rows, MOST_ROWS)

    async def _after_shortage(self, batch: list[_Waiting], error: Exception) -> None:
        """Frees memory. Questions that have sent no text yet wait again, once."""
        traceback.clear_frames(error.__traceback__)  # they hold on to tensors
        with suppress(RuntimeError):  # the device is closed; the next batch reports it
            await self._device.call(Priority.ANSWER, self._learner.free_cached_memory)
        self._most_rows = max(len(batch) // 2, 1)
        for waiting in reversed(batch):
            if waiting.started or waiting.retried:
                shortage = MemoryShortageError(f"memory ran out while it was answered: {error}")
                waiting.said.put_nowait(shortage)
            else:
                waiting.retried = True
                self._waiting.appendleft(waiting)

    def _begin(self, batch: list[_Waiting]) -> Iterator[list[tuple[_Waiting, Said]]]:
        """Fills the batch from the queue and answers it. Runs on the device thread."""
        refused: list[tuple[_Waiting, Said]] = []
        while self._waiting:
            waiting = self._waiting[0]
            asked = waiting.asked
            try:
                room = self._learner.room_to_answer(asked.question)
            except InvalidFactError as error:
                refused.append((self._waiting.popleft(), error))
                continue
            asked.max_new_tokens = min(asked.max_new_tokens, room)
            waiting.tokens = self._learner.tokens_of(asked.question) + asked.max_new_tokens
            if not self._has_room(waiting):
                self._full = True
                break
            self._waiting.popleft()
            if asked.gone.is_set():
                continue
            waiting.version = self._learner.version
            self._live.add(waiting)
            batch.append(waiting)
        try:
            yield refused
            for new in self._learner.ask_together([waiting.asked for waiting in batch]):
                ended = {batch[index] for index, said in new if isinstance(said, Generated)}
                self._leave(ended | {waiting for waiting in batch if waiting.asked.gone.is_set()})
                yield [(batch[index], said) for index, said in new]
        finally:
            self._leave(set(batch))

    def _leave(self, waiting: set[_Waiting]) -> None:
        if waiting & self._live:
            self._live -= waiting
            self._full = False

    def _has_room(self, waiting: _Waiting) -> bool:
        if not self._live:
            return True  # one question always fits
        tokens = sum(live.tokens for live in self._live) + waiting.tokens
        return len(self._live) < self._most_rows and tokens <= MOST_TOKENS
