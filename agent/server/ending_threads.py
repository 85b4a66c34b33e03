"""Threads whose work does not delay the end of a server.

A thread cannot be cancelled. At the end of a program, asyncio and Python both wait for it, even
while it copies a large database or checks every byte of the snapshots. A server that was stopped
ends without it. What such work leaves is marked as unfinished, and removed later.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


class EndingThreads(ThreadPoolExecutor):
    """The threads of `asyncio.to_thread`, which end in bounded time."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="agent")
        self._running: set[Future[Any]] = set()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """See `Executor.submit`."""
        future = super().submit(fn, *args, **kwargs)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def end(self, seconds: float) -> None:
        """Exits the process if work is still running after this many seconds.

        Call it last, when all that was acknowledged is durable.
        """
        self.shutdown(wait=False, cancel_futures=True)
        if wait(list(self._running), seconds).not_done:
            logger.warning(
                "work in a thread did not end in %g s: the server ends without it", seconds
            )
            logging.shutdown()
            os._exit(0)


def use_ending_threads() -> EndingThreads:
    """Installs them in the running loop."""
    threads = EndingThreads()
    asyncio.get_running_loop().set_default_executor(threads)
    return threads
