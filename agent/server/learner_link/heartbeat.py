"""Detects a hung learner: it must answer pings, and its device must make progress.

The learner's event loop answers pings, whatever the device does. The response says for how long the
device has worked without progress. A step on a CPU takes tens of seconds and shows progress at each
layer. Capturing a CUDA graph or compiling a kernel also takes long, and shows none. So the limit
for the device is much longer than the one for pings.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.config import DEFAULT_SILENT_SECONDS, DEFAULT_STALLED_SECONDS
from agent.errors import LearnerUnavailableError, LearningFailedError

logger = logging.getLogger(__name__)

# The longest time between two pings.
PING_SECONDS = 1.0
# Pings that must fail in a row: one fails whenever the machine or the server itself stood still.
MISSED = 3
# The deadline of a ping when silence has no limit.
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a learner counts as hung.

    Attributes:
        silent_seconds: the longest time without a response to pings; 0 for no limit.
        stalled_seconds: the longest time without progress of the device; 0 for no limit.
        starting_seconds: the longest silence while it starts. Importing PyTorch from a cold disk
            can block the interpreter for a while.
        start_seconds: the longest start.
    """

    silent_seconds: float = DEFAULT_SILENT_SECONDS
    stalled_seconds: float = DEFAULT_STALLED_SECONDS
    starting_seconds: float = 60.0
    start_seconds: float = 3600.0


async def hung(
    ping: Callable[[float], Awaitable[float]],
    limits: Limits,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    now: Callable[[], float] = time.monotonic,
) -> str:
    """Waits until a learner counts as hung; returns why it does.

    Args:
        ping: pings it with a deadline, and returns how long its device has stalled, in seconds.
        limits: when it counts as hung.
        sleep: waits for a number of seconds.
        now: a clock, in seconds.
    """
    deadline = limits.silent_seconds / MISSED or None
    missed = 0
    while True:
        asked = now()
        try:
            stalled = await ping(deadline or PATIENCE_SECONDS)
            missed, again = 0, asked + min(PING_SECONDS, deadline or PING_SECONDS)
            if 0 < limits.stalled_seconds < stalled:
                return f"its device has made no progress for {stalled:.0f} s"
        except (LearnerUnavailableError, LearningFailedError) as error:
            logger.debug("a ping failed: %s", error)
            missed, again = missed + 1, asked + (deadline or PATIENCE_SECONDS)
            if deadline is not None and missed >= MISSED:
                return f"it has given no sign of life for {limits.silent_seconds:g} s"
        # A ping that fails at once counts for as long as one without a response.
        await sleep(max(again - now(), 0.0))
