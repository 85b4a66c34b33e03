"""Streams that are open: how many there may be, and their end when a token no longer allows them.

A call is let in once, but a stream can go on for days. So each is looked at again, every second.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agent.errors import AgentError, TooManyStreamsError

# Of one client at a time, and of all.
MAX_OF_A_CLIENT = 1_000
MAX_STREAMS = 4_000
# Between two looks at whether open streams are still allowed.
CHECK_SECONDS = 1.0

Refusal = Callable[[], AgentError | None]


@dataclass(slots=True, eq=False)
class OpenStream:
    """One stream.

    Attributes:
        task: that serves it.
        refusal: why it is not allowed any more; None while it is.
        ended: the reason, once it is to end.
        is_sending: an answer is on its way, which a client that does not read may hold up.
    """

    task: asyncio.Task[object] | None
    refusal: Refusal
    ended: AgentError | None = None
    is_sending: bool = False


class OpenStreams:
    """All streams of a server.

    Args:
        max_of_a_client: at a time; more are refused.
        max_streams: of all clients.
    """

    def __init__(
        self, max_of_a_client: int = MAX_OF_A_CLIENT, max_streams: int = MAX_STREAMS
    ) -> None:
        self._max_of_a_client = max_of_a_client
        self._max_streams = max_streams
        self._of_clients: Counter[str] = Counter()
        self._streams: set[OpenStream] = set()

    def full(self, client: str) -> TooManyStreamsError | None:
        """Why this client may open no more now; None if it may."""
        if self._of_clients.get(client, 0) >= self._max_of_a_client:
            return TooManyStreamsError(
                f"{self._max_of_a_client} streams of this client are open: end one, or try again"
                " later"
            )
        if len(self._streams) >= self._max_streams:
            return TooManyStreamsError("too many streams are open: try again later")
        return None

    @contextmanager
    def opened(self, client: str, refusal: Refusal) -> Iterator[OpenStream]:
        """Counts a stream, which the current task serves, while it is open."""
        stream = OpenStream(asyncio.current_task(), refusal)
        self._of_clients[client] += 1
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)
            self._of_clients[client] -= 1
            if not self._of_clients[client]:
                del self._of_clients[client]

    def check(self) -> None:
        """Ends those that are not allowed any more.

        One that is sending ends by itself after that, unless it is stuck: then at the next look.
        """
        for stream in list(self._streams):
            was_ended = stream.ended is not None
            stream.ended = stream.ended or stream.refusal()
            stuck = was_ended or not stream.is_sending
            if stream.ended is not None and stuck and stream.task is not None:
                stream.task.cancel()

    async def keep_checking(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.check()
