"""Waiting for a server that is starting."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from agent.client.async_client import AsyncClient
from agent.client.client import Client
from agent.client.server_start import Start, may_pass, not_ready
from agent.errors import (
    AgentError,
    ConfigError,
    HandshakeFailedError,
    LearnerError,
    ServerUnreachableError,
)
from agent.server.api.server import MEMORY_SERVICE, MODEL_SERVICE
from agent.wire.error_details import Refusal, RequestError
from memory_store.vocabulary import LearnerState
from tests.server.serving import Serving, recovering, serving

GONE = ServerUnreachableError("no server answers")


def refused(code: grpc.StatusCode, reason: str = "") -> RequestError:
    return RequestError(Refusal(code=code, message="no", reason=reason))


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (GONE, True),
        (LearnerError("starting"), True),
        (refused(grpc.StatusCode.UNAVAILABLE), True),
        (refused(grpc.StatusCode.UNAVAILABLE, "LEARNER_UNAVAILABLE"), True),
        (refused(grpc.StatusCode.UNAVAILABLE, "STOPPING"), True),
        (refused(grpc.StatusCode.UNAVAILABLE, "MEMORY_UNUSABLE"), False),
        (refused(grpc.StatusCode.UNAUTHENTICATED), False),
        (refused(grpc.StatusCode.UNIMPLEMENTED), False),
        (HandshakeFailedError("TLS"), False),
        (ConfigError("no such file"), False),
    ],
)
def test_only_what_a_start_mends_is_waited_for(error: AgentError, passes: bool) -> None:
    assert may_pass(error) is passes
    start = Start(1.0, now=lambda: 0.0)
    if passes:
        start.blocked_by(error)
    else:
        with pytest.raises(type(error)):
            start.blocked_by(error)


def test_what_is_in_the_way_is_reported_when_it_changes_and_raised_when_the_time_is_over() -> None:
    times, reported = iter([0.0, 1.0, 2.0, 3.0, 5.0]), list[str]()
    start = Start(5.0, lambda reason: reported.append(str(reason)), lambda: next(times))
    for reason in (GONE, GONE, not_ready(LearnerState.STARTING, "fetching the model")):
        start.blocked_by(reason)
    assert reported == ["no server answers", "the learner is starting (fetching the model)"]
    with pytest.raises(LearnerError, match="after 5 s the learner is recovering"):
        start.blocked_by(not_ready(LearnerState.RECOVERING, ""))
    with pytest.raises(ServerUnreachableError):
        Start(0.0, lambda reason: reported.append(str(reason)), lambda: 0.0).blocked_by(GONE)
    assert len(reported) == 2


@pytest.fixture
async def waiting(served: Serving) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.server.address) as client:
        yield client


async def test_a_server_that_has_started_is_not_waited_for(
    waiting: AsyncClient, served: Serving
) -> None:
    assert (await waiting.wait_accepting(0)).learner == "ready"
    recovering(served)
    assert (await waiting.wait_accepting(0)).learner == "recovering"  # teaching need not wait
    with pytest.raises(LearnerError, match="after 0 s the learner is recovering"):
        await waiting.wait_ready(0)


@pytest.mark.parametrize("service", [MODEL_SERVICE, MEMORY_SERVICE])
async def test_clients_go_on_once_the_server_is_ready(
    waiting: AsyncClient, served: Serving, service: str
) -> None:
    recovering(served)
    served.server.set_serving(service, False)
    served.view.message = "signal 9"
    loop, reported = asyncio.get_running_loop(), list[str]()

    def on_wait(reason: AgentError) -> None:
        reported.append(str(reason))
        loop.call_soon_threadsafe(served.server.set_serving, service, True)

    if service == MODEL_SERVICE:
        await waiting.wait_ready(on_wait=on_wait)
        served.server.set_serving(service, False)
        with Client(served.server.address) as client:
            await asyncio.to_thread(client.wait_ready, on_wait=on_wait)
    else:
        await waiting.wait_accepting(on_wait=on_wait)
        served.server.set_serving(service, False)
        with Client(served.server.address) as client:
            await asyncio.to_thread(client.wait_accepting, on_wait=on_wait)
    assert reported == ["the learner is recovering (signal 9)"] * 2


async def test_a_port_that_is_not_open_yet_is_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    begun = asyncio.Event()
    async with AsyncClient(address) as client:
        with pytest.raises(ServerUnreachableError):
            await client.wait_accepting(0)
        start = asyncio.create_task(client.wait_accepting(on_wait=lambda reason: begun.set()))
        await begun.wait()
        async with serving(tmp_path, listen=address):
            assert (await start).learner == "ready"
