"""Limits the rate of calls, with a token bucket for each client."""

from __future__ import annotations

from collections import OrderedDict

# The most clients that are tracked. The one that was quiet longest is dropped.
MAX_CLIENTS = 10_000


class RateLimiter:
    """Allows each client `per_second` calls a second, with bursts of one second's calls.

    A bucket is stored as the time at which it will be full again.

    Args:
        per_second: the calls a second of each client.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._capacity = max(per_second, 1.0)  # at least one call must fit
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, client: str, now: float, calls: int = 1) -> float:
        """Takes calls from the client's bucket, if at least one is left.

        Args:
            client: the client that calls.
            now: the time of a monotonic clock, in seconds.
            calls: how many calls this counts as. A large batch is admitted as a whole, on credit:
                the next call waits until the credit is paid off.

        Returns:
            0 if the call is admitted, else the seconds to wait.
        """
        full_at = max(self._full_at.get(client, now), now)
        wait = full_at + self._interval - now - self._capacity * self._interval
        # Rounding must not refuse the last call of a full bucket.
        if wait > 1e-9 * self._interval:
            return wait
        self._full_at[client] = full_at + calls * self._interval
        self._full_at.move_to_end(client)
        if len(self._full_at) > MAX_CLIENTS:
            self._full_at.popitem(last=False)
        return 0.0
