"""Questions of many clients, answered in batches.

A pass over the model costs about as much for eight questions as for one. So all that wait when the
device turns to questions are answered together; those that come later are the next batch, which
takes turns with the first, token by token.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from agent.errors import InvalidFactError
from agent.learning.generation import Asked
from agent.learning.learner import Learner
from agent.learning.records import Generated
from agent.service.device_thread import DeviceThread, Priority

# Bounds the memory of the key-value cache.
LARGEST_BATCH = 32

# A piece of text, the whole answer, or what went wrong.
Said: TypeAlias = str | Generated | Exception


@dataclass(kw_only=True, slots=True, eq=False)
class _Waiting:
    asked: Asked
    version: int = 0  # of the weights that answer
    said: asyncio.Queue[Said] = field(default_factory=asyncio.Queue)


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

    async def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        """Pieces of the answer, then the whole, each with the version of the weights.

        One version says all of an answer. Leaving early takes the question out of its batch
        before the next token.

        Raises:
            InvalidFactError: the question leaves no room for an answer.
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
        if not self._called:
            self._called = True
            batch = asyncio.create_task(self._answer())
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)

    async def _answer(self) -> None:
        """Answers one batch: whoever waits when the device turns to it."""
        batch: list[_Waiting] = []
        begun = False
        try:
            async for new in self._device.stream(Priority.ANSWER, lambda: self._begin(batch)):
                if not begun:
                    begun, self._called = True, False
                    if self._waiting:  # too late, or too many
                        self._call()
                for waiting, said in new:
                    waiting.said.put_nowait(said)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            if not begun:  # the device is closed
                self._called = False
                batch += self._waiting
                self._waiting.clear()
            for waiting in batch:
                waiting.said.put_nowait(error)

    def _begin(self, batch: list[_Waiting]) -> Iterator[list[tuple[_Waiting, Said]]]:
        """Takes those who wait into the batch, and answers them; on the device's thread."""
        refused: list[tuple[_Waiting, Said]] = []
        while self._waiting and len(batch) < LARGEST_BATCH:
            waiting = self._waiting.popleft()
            waiting.version = self._learner.version
            asked = waiting.asked
            try:
                room = self._learner.room_to_answer(asked.question)
            except InvalidFactError as error:
                refused.append((waiting, error))
                continue
            asked.max_new_tokens = min(asked.max_new_tokens, room)
            batch.append(waiting)
        yield refused
        for new in self._learner.ask_together([waiting.asked for waiting in batch]):
            yield [(batch[index], said) for index, said in new]
