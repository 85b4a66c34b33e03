"""Starts and stops the learner process.

The process is spawned, not forked: gRPC's threads and CUDA do not survive a fork. A thread is too
slow: a busy thread in the server reduced durable `Teach` from 1,372 to 25 calls a second. The
learner watches its standard input, which closes when the server ends, even after a kill -9. So it
never outlives the server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import grpc

from agent.addresses import proxy_options
from agent.errors import LearnerUnavailableError, ModelError
from agent.python_command import python_command, python_environment, without_secrets
from agent.server.learner_link.client import MAX_MESSAGE_BYTES, LearnerClient
from agent.server.learner_link.heartbeat import Limits, hung
from agent.server.learner_link.socket_folder import SOCKET, socket_folder
from agent.server.telemetry.observer import Observer

logger = logging.getLogger(__name__)

# Lines on the learner's standard output: repeatedly while it starts, and once when it serves.
ALIVE, READY = "alive", "ready"
# The exit code for an error that another start cannot fix.
CANNOT_START_EXIT_CODE = 3
STOP_SECONDS = 10.0


class RunningLearner(LearnerClient):
    """A learner process and its client.

    Attributes:
        pid: the id of the process.
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
        """Waits for the end of the process; returns its exit code."""
        return await self._process.wait()


@asynccontextmanager
async def learner_process(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    observer: Observer | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> AsyncIterator[RunningLearner]:
    """Starts a learner that is ready for calls. Stops it on exit, and kills it when it hangs.

    Args:
        arguments: the command line of the learner, without the socket.
        environment: environment variables to add.
        observer: receives what was learned and probed, for metrics.
        limits: when it counts as hung.

    Raises:
        ConfigError: there is no folder for its socket.
        ModelError: the model cannot be loaded, and another start would not help.
        LearnerUnavailableError: it died, or hung, while starting or later.
    """
    with socket_folder() as folder:
        address = f"unix:{folder / SOCKET}"
        process = await asyncio.create_subprocess_exec(
            *python_command("-m", "agent.learner", "--listen", address, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # It needs no secrets: it only serves this process, and its model is on this machine.
            env=without_secrets(python_environment(environment)),
            # A group of its own: Ctrl-C goes to the server, which lets the current update end.
            start_new_session=True,
        )
        try:
            await _wait_ready(process, limits)
            options = [
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                *proxy_options(address, tls=False),
            ]
            async with grpc.aio.insecure_channel(address, options=options) as channel:
                learner = RunningLearner(channel, process, observer)
                async with _killed_when_hung(learner, process, limits):
                    yield learner
        finally:
            await _stop(process)


@asynccontextmanager
async def _killed_when_hung(
    learner: RunningLearner, process: asyncio.subprocess.Process, limits: Limits
) -> AsyncIterator[None]:
    """Kills the learner when it hangs, and then reports that as the reason of its death."""
    reasons: list[str] = []

    async def watch() -> None:
        reasons.append(f"the learner hung, and was killed: {await hung(learner.ping, limits)}")
        logger.error("%s", reasons[0])
        process.kill()

    watching = asyncio.create_task(watch())
    try:
        yield
    except LearnerUnavailableError as error:
        if reasons:
            raise LearnerUnavailableError(reasons[0]) from error
        raise
    finally:
        watching.cancel()


async def _wait_ready(process: asyncio.subprocess.Process, limits: Limits) -> None:
    """Waits until the learner serves.

    Raises:
        ModelError: it reports that the model cannot be loaded.
        LearnerUnavailableError: it died, or was silent for too long.
    """
    assert process.stdout is not None
    last_line, seconds = "", limits.starting_seconds
    try:
        async with asyncio.timeout(limits.start_seconds):
            while line := await asyncio.wait_for(process.stdout.readline(), seconds):
                said = line.decode().strip()
                if said == READY:
                    return
                if said != ALIVE:
                    last_line = said
    except TimeoutError:
        process.kill()
        raise LearnerUnavailableError("the learner hung while starting, and was killed") from None
    code = await process.wait()
    if code == CANNOT_START_EXIT_CODE:
        raise ModelError(last_line)
    raise LearnerUnavailableError(f"the learner died while starting ({describe_exit(code)})")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Closes its standard input, so that it ends; kills it if it does not end in time."""
    if process.returncode is None and process.stdin is not None:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


def describe_exit(code: int) -> str:
    """Describes an exit code: `exit code 3` or `signal 9`."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"
