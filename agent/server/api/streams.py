"""Limits the number of open streams, and ends those whose token is no longer valid.

Access is checked when a call begins, but a stream may last for days. So every stream is checked
again each second.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agent.errors import AgentError, TooManyStreamsError

# The most open streams of one client, and of all.
MAX_OF_A_CLIENT = 1_000
MAX_STREAMS = 4_000
# The time between two checks of all open streams.
CHECK_SECONDS = 1.0

Refusal = Callable[[], AgentError | None]


@dataclass(slots=True, eq=False)
class OpenStream:
    """One stream.

    Attributes:
        task: the task that serves it.
        refusal: returns why the stream is no longer allowed; None while it is.
        ended: the reason for its end, once it must end.
        is_sending: a response is being sent, which a client that does not read may block.
    """

    task: asyncio.Task[object] | None
    refusal: Refusal
    ended: AgentError | None = None
    is_sending: bool = False


class OpenStreams:
    """All streams of a server.

    Args:
        max_of_a_client: the most open streams of one client; more are refused.
        max_streams: the most open streams of all clients.
    """

    def __init__(
        self, max_of_a_client: int = MAX_OF_A_CLIENT, max_streams: int = MAX_STREAMS
    ) -> None:
        self._max_of_a_client = max_of_a_client
        self._max_streams = max_streams
        self._of_clients: Counter[str] = Counter()
        self._streams: set[OpenStream] = set()

    def full(self, client: str) -> TooManyStreamsError | None:
        """Returns why this client may open no more streams now; None if it may."""
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
        """Counts a stream of the current task while it is open."""
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
        """Ends the streams that are no longer allowed.

        A stream that is sending ends by itself afterwards. If it is stuck, the next check ends it.
        """
        for stream in list(self._streams):
            was_ended = stream.ended is not None
            stream.ended = stream.ended or stream.refusal()
            stuck = was_ended or not stream.is_sending
            if stream.ended is not None and stuck and stream.task is not None:
                stream.task.cancel()

    async def keep_checking(self) -> None:
        """Checks all streams at intervals, until it is cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.check()
