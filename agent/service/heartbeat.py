"""Whether a learner is alive: it answers pings, and its device gets on.

A ping is answered by the learner's asyncio loop, whatever its device does. The answer says for how
long the device has been in one piece of work without a sign of progress. A step on a CPU takes tens
of seconds, and shows progress at each layer; recording a CUDA graph or compiling a kernel takes a
while and shows none. So the two limits are far apart.
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

# Between two pings, at most.
PING_SECONDS = 1.0
# So many must fail in a row: a machine or a server that stood still itself loses one.
MISSED = 3
# For a ping, where silence is no reason to act.
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a learner counts as hung.

    Attributes:
        silent_seconds: without an answer to pings; 0: never.
        stalled_seconds: of its device in one piece of work, without progress; 0: never.
        starting_seconds: without a sign of life while it starts, where importing PyTorch from a
            cold disk can hold the interpreter for a while.
        start_seconds: until it serves.
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
    """Returns why a learner counts as hung, once it does.

    Args:
        ping: asks it, with a deadline in seconds; returns for how long its device has stalled.
        limits: see there.
        sleep: waits for some seconds.
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
        # A ping that fails at once counts for as long as one that is not answered.
        await sleep(max(again - now(), 0.0))
