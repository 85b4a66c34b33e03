"""H2: a server that stops does not wait for a thread, however long its work takes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

from agent.server.ending_threads import use_ending_threads

PROGRAM = """
import asyncio, threading
from agent.server.ending_threads import use_ending_threads

async def main():
    threads = use_ending_threads()
    begun = threading.Event()

    def work():
        begun.set()
        threading.Event().wait()

    task = asyncio.create_task(asyncio.to_thread(work))
    while not begun.is_set():
        await asyncio.sleep(0.01)
    task.cancel()
    print("ending", flush=True)
    threads.end(0.05)
    print("not reached", flush=True)

asyncio.run(main())
"""


def test_a_thread_that_never_ends_holds_up_no_process() -> None:
    # Without the fix it never ends: the limit is for that.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ending\n")


async def test_work_that_ends_in_time_is_waited_for() -> None:
    threads = use_ending_threads()
    assert await asyncio.to_thread(lambda: 7) == 7
    begun, finished = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        time.sleep(0.05)
        finished.set()

    future = threads.submit(work)
    begun.wait()
    threads.end(30)
    assert future.done()
    assert finished.is_set()
