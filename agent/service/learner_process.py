"""Starts the learner as a process of its own, and ends it.

Spawned, never forked: gRPC's threads and CUDA do not survive a fork. A thread would not do: a busy
one beside the server cut durable `Teach` from 1,372 to 25 a second. The learner watches its
standard input, which ends with this process, so it never outlives the server, not even after a
kill -9.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from agent.addresses import proxy_options
from agent.errors import LearnerUnavailableError, ModelError
from agent.service.learner_client import MAX_MESSAGE_BYTES, LearnerClient
from agent.telemetry.observer import Observer

# What the learner prints on standard output once it serves.
READY = "ready"
# Exit code for an error that another start would only meet again; its text is on standard error.
CANNOT_START_EXIT_CODE = 3
STOP_SECONDS = 10.0


class RunningLearner(LearnerClient):
    """A learner process and the link to it.

    Attributes:
        pid: of the process.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        process: asyncio.subprocess.Process,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(channel, observer)
        self._process = process
        self.pid = process.pid

    async def wait_dead(self) -> int:
        """Returns the exit code once the process has ended."""
        return await self._process.wait()


@asynccontextmanager
async def learner_process(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    observer: Observer | None = None,
) -> AsyncIterator[RunningLearner]:
    """A learner, ready to be spoken to; stopped on leaving.

    Args:
        arguments: command line of `agent.learner`, without the socket.
        environment: variables to add.
        observer: told of what it does.

    Raises:
        ModelError: the model cannot be loaded; trying again would not help.
        LearnerUnavailableError: it died while starting.
    """
    # A short path of its own: a socket's path may have 107 bytes, less than a data folder's.
    with tempfile.TemporaryDirectory(prefix="agent-") as folder:
        address = f"unix:{Path(folder) / 'learner.sock'}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent.learner", "--listen", address, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            # Its own group: Ctrl-C is for the server, which lets the running update end.
            start_new_session=True,
        )
        try:
            await _wait_ready(process)
            options = [
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                *proxy_options(address, tls=False),
            ]
            async with grpc.aio.insecure_channel(address, options=options) as channel:
                yield RunningLearner(channel, process, observer)
        finally:
            await _stop(process)


async def _wait_ready(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    last_line = ""
    async for line in process.stdout:
        if line.decode().strip() == READY:
            return
        last_line = line.decode().strip()
    code = await process.wait()
    if code == CANNOT_START_EXIT_CODE:
        raise ModelError(last_line)
    raise LearnerUnavailableError(f"the learner died while starting ({describe_exit(code)})")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Closes its standard input, at which it ends; kills it if it does not."""
    if process.returncode is None and process.stdin is not None:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


def describe_exit(code: int) -> str:
    """An exit code in words: `exit code 3` or `signal 9`."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"
