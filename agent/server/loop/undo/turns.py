"""Learning goes on while a fact is forgotten: taking turns, so that forgetting comes to an end.

The head and the branch learn on different learners at the same time. What the head learns has to be
learned again on the branch before it can take over. So the head may learn one fact for every two
that the branch has repeated. If R facts are to be repeated at first, the branch repeats 2R + 2 of
them at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# Facts and reviews that the head may process for each that the branch repeats.
HEAD_FOR_EACH_REPEATED = 0.5


class Turns:
    """Says when the head may learn the next fact."""

    def __init__(self) -> None:
        self._allowed = 1.0  # facts that the head may learn now: one at once, for who waits for it
        self._stopped = False
        self._changed = asyncio.Condition()
        self._learning = False

    def repeated(self) -> None:
        """The branch has repeated a fact or a review."""
        self._allowed += HEAD_FOR_EACH_REPEATED

    async def announce(self) -> None:
        """Lets the head look whether it may go on."""
        async with self._changed:
            self._changed.notify_all()

    async def stop(self) -> None:
        """Lets the head finish what it is at; from then on it processes nothing."""
        async with self._changed:
            self._stopped = True
            await self._changed.wait_for(lambda: not self._learning)

    async def wait_for_head(self) -> bool:
        """Waits for what the head is at, and takes its next turns; False if it had none."""
        had_turns = self._learning or self._allowed >= 1
        self._allowed = 0.0
        async with self._changed:
            await self._changed.wait_for(lambda: not self._learning)
        return had_turns

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[list[object]]:
        """Waits until the head may learn; what was processed inside is put into the list."""
        processed: list[object] = []
        async with self._changed:
            await self._changed.wait_for(lambda: self._allowed >= 1 and not self._stopped)
            self._learning = True
        try:
            yield processed
        finally:
            self._allowed -= len(processed)
            async with self._changed:
                self._learning = False
                self._changed.notify_all()
