"""How often one client may call: a token bucket for each."""

from __future__ import annotations

from collections import OrderedDict

# More clients than this at a time, and the one that was quiet longest is forgotten.
MAX_CLIENTS = 10_000


class RateLimiter:
    """Lets each client make `per_second` calls a second, and one second's worth at once.

    A bucket is kept as the time at which it will be full again, so a client is one number.

    Args:
        per_second: of each client.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._capacity = max(per_second, 1.0)  # else not even one call would ever fit
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, client: str, now: float, calls: int = 1) -> float:
        """Takes calls out of the client's bucket, if there is one in it.

        Args:
            client: whoever it is that calls.
            now: seconds of a clock that never goes back.
            calls: how many this counts as. A large batch is let through whole, on credit: the next
                call waits until it is paid off.

        Returns:
            0 if the call may go on, else the seconds after which one would.
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
