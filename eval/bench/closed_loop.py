"""A closed loop: a fixed number of calls in flight, each of which is followed by the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The result of a closed loop.

    Attributes:
        rate: calls a second, over all of them.
        latencies: seconds of each call, ascending.
    """

    rate: float
    latencies: Sequence[float]

    def quantile(self, share: float) -> float:
        """The latency in milliseconds that this share of the calls did not exceed."""
        return 1000 * self.latencies[min(int(share * len(self.latencies)), len(self.latencies) - 1)]


async def closed_loop(
    call: Callable[[T], Awaitable[object]], requests: Iterable[T], in_flight: int
) -> Load:
    """Sends all requests, `in_flight` at a time, and waits for the answers."""
    left = iter(requests)
    latencies: list[float] = []

    async def send_in_turn() -> None:
        for request in left:
            started = time.perf_counter()
            await call(request)
            latencies.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(send_in_turn() for _ in range(in_flight)))
    rate = len(latencies) / (time.perf_counter() - started)
    return Load(rate=rate, latencies=sorted(latencies))
