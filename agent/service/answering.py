"""Questions of many clients, answered in batches.

A pass over the model costs about as much for eight questions as for one. So all that wait when the
device turns to questions are answered together; those that come later are the next batch, which
takes turns with the first, token by token.

Memory is bounded over all batches: what finds no room waits until an answer ends. Where memory runs
out all the same, a batch is given up; those in it who were told nothing yet wait again, and for a
while half as many are answered together.
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
from agent.learning.generation import Asked
from agent.learning.learner import Learner
from agent.learning.records import Generated
from agent.learning.slots import is_out_of_memory
from agent.service.device_thread import DeviceThread, Priority

# What bounds the memory of all key-value caches together: answers, and tokens of their questions
# and of the longest answers they may get.
MOST_ROWS = 32
MOST_TOKENS = 32 * 512

# A piece of text, the whole answer, or what went wrong.
Said: TypeAlias = str | Generated | Exception


@dataclass(kw_only=True, slots=True, eq=False)
class _Waiting:
    asked: Asked
    version: int = 0  # of the weights that answer
    tokens: int = 0  # that its row may come to
    said: asyncio.Queue[Said] = field(default_factory=asyncio.Queue)
    told: bool = False  # some of it
    retried: bool = False


class Answering:
    """Answers with the served weights, before anything else is done on the device.

    `ask` belongs to one asyncio loop.
    """

    def __init__(self, learner: Learner, device: DeviceThread) -> None:
        self._learner = learner
        self._device = device
        # Filled on the loop, emptied on the device's thread.
        self._waiting: deque[_Waiting] = deque()
        self._called = False  # the device will turn to those who wait
        self._batches: set[asyncio.Task[None]] = set()
        # Who is being answered; changed on the device's thread only.
        self._live: set[_Waiting] = set()
        self._full = False  # for the first of those who wait, until somebody leaves
        self._most_rows = MOST_ROWS

    async def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        """Pieces of the answer, then the whole, each with the version of the weights.

        One version says all of an answer. Leaving early takes the question out of its batch
        before the next token.

        Raises:
            InvalidFactError: the question leaves no room for an answer.
            MemoryShortageError: memory ran out.
        """
        waiting = _Waiting(asked=Asked(question=question, max_new_tokens=max_new_tokens))
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
        """Has the device turn to those who wait, if there may be room for one."""
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
        """Answers one batch: whoever waits when the device turns to it, and finds room."""
        batch: list[_Waiting] = []
        begun = False
        try:
            async for new in self._device.stream(Priority.ANSWER, lambda: self._begin(batch)):
                if not begun:
                    begun, self._called = True, False
                for waiting, said in new:
                    waiting.told = True
                    waiting.said.put_nowait(said)
                self._call()  # for who came too late, or may find room now
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
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
        """Frees memory; whoever was told nothing yet waits again, once."""
        traceback.clear_frames(error.__traceback__)  # they hold on to tensors
        with suppress(RuntimeError):  # the device is closed, which the next batch tells
            await self._device.call(Priority.ANSWER, self._learner.free_cached_memory)
        self._most_rows = max(len(batch) // 2, 1)
        for waiting in reversed(batch):
            if waiting.told or waiting.retried:
                shortage = MemoryShortageError(f"memory ran out while it was answered: {error}")
                waiting.said.put_nowait(shortage)
            else:
                waiting.retried = True
                self._waiting.appendleft(waiting)

    def _begin(self, batch: list[_Waiting]) -> Iterator[list[tuple[_Waiting, Said]]]:
        """Takes those who wait into the batch, and answers them; on the device's thread."""
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
            return True  # whatever it takes
        tokens = sum(live.tokens for live in self._live) + waiting.tokens
        return len(self._live) < self._most_rows and tokens <= MOST_TOKENS
