"""A closed loop of calls: so many in flight, each followed by the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a closed loop measured.

    Attributes:
        rate: calls a second, over all of them.
        latencies: of each call in seconds, ascending.
    """

    rate: float
    latencies: Sequence[float]

    def quantile(self, share: float) -> float:
        """The latency in milliseconds that this share of the calls kept to."""
        return 1000 * self.latencies[min(int(share * len(self.latencies)), len(self.latencies) - 1)]


async def closed_loop(
    call: Callable[[T], Awaitable[object]], requests: Iterable[T], in_flight: int
) -> Load:
    """Sends all requests, `in_flight` at any time, and waits for the answers."""
    left = iter(requests)
    latencies: list[float] = []

    async def one_after_the_other() -> None:
        for request in left:
            started = time.perf_counter()
            await call(request)
            latencies.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(in_flight)))
    rate = len(latencies) / (time.perf_counter() - started)
    return Load(rate=rate, latencies=sorted(latencies))
