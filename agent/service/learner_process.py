"""Starts the learner as a process of its own, and ends it.

Spawned, never forked: gRPC's threads and CUDA do not survive a fork. A thread would not do: a busy
one beside the server cut durable `Teach` from 1,372 to 25 a second. The learner watches its
standard input, which ends with this process, so it never outlives the server, not even after a
kill -9.
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
from agent.service.heartbeat import Limits, hung
from agent.service.learner_client import MAX_MESSAGE_BYTES, LearnerClient
from agent.service.socket_folder import SOCKET, socket_folder
from agent.telemetry.observer import Observer

logger = logging.getLogger(__name__)

# What the learner prints on standard output: again and again while it starts, and once it serves.
ALIVE, READY = "alive", "ready"
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
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> AsyncIterator[RunningLearner]:
    """A learner, ready to be spoken to; stopped on leaving, killed when it hangs.

    Args:
        arguments: command line of `agent.learner`, without the socket.
        environment: variables to add.
        observer: told of what it does.
        limits: when it counts as hung.

    Raises:
        ConfigError: there is no folder for its socket.
        ModelError: the model cannot be loaded; trying again would not help.
        LearnerUnavailableError: it died, or hung, while starting or later.
    """
    with socket_folder() as folder:
        address = f"unix:{folder / SOCKET}"
        process = await asyncio.create_subprocess_exec(
            *python_command("-m", "agent.learner", "--listen", address, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # It speaks to this process alone, and its model is on this machine: it needs no secret.
            env=without_secrets(python_environment(environment)),
            # Its own group: Ctrl-C is for the server, which lets the running update end.
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
    """Watches a learner; its death is then told by what it is known to have died of."""
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
    """Returns once it serves.

    Raises:
        ModelError: it says that it cannot.
        LearnerUnavailableError: it died, or gave no sign of life for too long.
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
