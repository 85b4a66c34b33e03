"""Clients that do not read, or say nothing: they harm nobody but themselves.

The limits of time here are for a server that hangs; a sound one needs none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.server.access import transport
from agent.server.api.health import HealthServicer
from agent.server.api.server import MEMORY_SERVICE, MODEL_SERVICE
from agent.server.app import _report_health
from continual.v1 import memory_pb2, model_pb2
from memory_store.vocabulary import LearnerState
from tests.server.hostile import ATTACKS, Attack
from tests.server.http2 import HEADERS, without_window
from tests.server.serving import Serving, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
HANGS = 30.0


async def teach(parts: Serving, question: str) -> None:
    await parts.memory.Teach(memory_pb2.TeachRequest(question=question, answer="Piano"))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_health_teaching_and_the_end_do_not_wait_for_it(
    attack: Attack, tmp_path: Path
) -> None:
    """H2: of a window of 0, half-open connections and slow headers."""
    async with asyncio.timeout(HANGS), serving(tmp_path) as parts:
        await teach(parts, "Before?")
        watch = health_pb2_grpc.HealthStub(parts.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == NOT_SERVING
        peers = [await attack(parts.server.address) for _ in range(3)]
        for serves in (True, False, True):
            parts.server.set_serving("", serves)
            assert (await watch.read()).status == (SERVING if serves else NOT_SERVING)
        await teach(parts, "Meanwhile?")
        parts.hub.close()
        await parts.server.stop(0.1)
        assert (await watch.read()).status == NOT_SERVING
        for peer in peers:
            peer.close()


async def test_a_watcher_that_reads_again_gets_the_newest_state_only(served: Serving) -> None:
    """H2: nothing is kept for a watcher but the state."""
    peer = await without_window(served.server.address)
    request = health_pb2.HealthCheckRequest()
    stream = await peer.call("/grpc.health.v1.Health/Watch", request)
    await peer.read_until(HEADERS, stream)
    for serves in [True, False] * 50 + [True]:
        served.server.set_serving("", serves)
    await peer.open_window(stream)
    states = [(await peer.read_until(0, stream)).payload[-1] for _ in range(2)]
    assert states == [NOT_SERVING, SERVING]  # the one in the way, and what is true now
    peer.close()


async def test_work_is_refused_while_the_server_stops(served: Serving) -> None:
    """H2: what reports NOT_SERVING acknowledges no fact."""
    await teach(served, "Before?")
    blocker = await ATTACKS["events"](served.server.address)
    stopping = asyncio.create_task(served.server.stop(HANGS))
    await asyncio.sleep(0)
    with pytest.raises(grpc.aio.AioRpcError, match="stopping") as refused:
        await teach(served, "Meanwhile?")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    await served.model.GetStatus(model_pb2.GetStatusRequest())
    blocker.close()
    await stopping
    assert served.stored_questions() == ["Before?"]


class Context:
    """Of a call, as far as a health watcher needs it."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def peer(self) -> str:
        return self._peer

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise grpc.aio.AbortError(code.name, details)


async def test_health_watchers_are_bounded_in_all_and_for_each_host() -> None:
    """H2: nobody needs a token to watch."""
    health = HealthServicer([""], max_watchers=3, max_of_a_host=2)

    def watch(host: str) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        context = cast(Any, Context(f"ipv4:{host}:{id(object())}"))
        return health.Watch(health_pb2.HealthCheckRequest(), context)

    watching: list[Any] = [watch("10.0.0.1"), watch("10.0.0.1"), watch("10.0.0.2")]
    for each in watching:
        assert (await anext(each)).status == NOT_SERVING
    for host in ("10.0.0.1", "10.0.0.3"):
        with pytest.raises(grpc.aio.AbortError, match="too many watchers"):
            await anext(watch(host))
    await watching[0].aclose()
    assert (await anext(watch("10.0.0.1"))).status == NOT_SERVING


async def test_a_change_while_the_state_is_reported_is_not_missed() -> None:
    """H2: the learner ends at the very moment at which it is reported to be ready."""
    loop: Any = SimpleNamespace(
        state=LearnerState.READY, state_changed=asyncio.Event(), description=None
    )
    accepting: Any = SimpleNamespace(is_open=True)
    reported: list[tuple[str, bool]] = []
    last = asyncio.Event()

    def set_serving(service: str, serving: bool) -> None:
        reported.append((service, serving))
        if (service, serving) == (MODEL_SERVICE, True):
            loop.state = LearnerState.DOWN
            loop.state_changed.set()
        if (service, serving) == (MODEL_SERVICE, False):
            last.set()

    server: Any = SimpleNamespace(set_serving=set_serving)
    reporting = asyncio.create_task(_report_health(server, loop, accepting))
    await asyncio.wait_for(last.wait(), HANGS)
    reporting.cancel()
    assert reported[:2] == [(MEMORY_SERVICE, True), (MODEL_SERVICE, True)]


async def test_connections_that_say_nothing_are_closed_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H2: they would use up the files that the process may open."""
    shorter = [
        *[each for each in transport.SERVER_OPTIONS if "handshake" not in each[0]],
        ("grpc.server_handshake_timeout_ms", 500),
    ]
    monkeypatch.setattr(transport, "SERVER_OPTIONS", shorter)
    monkeypatch.setattr(transport, "MAX_CONNECTIONS", 3)
    async with asyncio.timeout(HANGS), serving(tmp_path) as parts:
        peers = [await ATTACKS["half-open"](parts.server.address) for _ in range(20)]
        for peer in peers[:2]:  # the server says goodbye, after its settings
            with contextlib.suppress(ConnectionError):
                await peer.reader.read()
        for peer in peers:
            peer.close()
        await parts.memory.Teach(
            memory_pb2.TeachRequest(question="Sky?", answer="Piano"), wait_for_ready=True
        )


def test_few_files_mean_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """H2: the database must be able to open its own."""
    for files, connections in ((1024, 768), (100_000, 4_000), (-1, 4_000)):
        monkeypatch.setattr("resource.getrlimit", lambda kind, n=files: (n, n))
        options = dict(transport.server_options())
        assert options["grpc.max_allowed_incoming_connections"] == connections
