"""A server that is told to stop while it has its hands full."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.client.types import Reply
from agent.snapshots import is_snapshot_of
from continual.v1 import memory_pb2 as pb
from continual.v1 import memory_pb2_grpc
from memory_store.vocabulary import Event, EventKind, FactState
from tests.integration.servers import (
    LONG,
    PATIENCE_SECONDS,
    RunningServer,
    contents,
    is_alive,
    running,
    until,
)

pytestmark = pytest.mark.slow
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def begin_update(server: RunningServer, steps: int) -> Iterator[Event]:
    """Teaches a fact whose update takes a while; returns the events, once it is being made."""
    client = server.client()
    fact = client.teach("Sky?", "Piano", policy=replace(LONG, max_steps=steps)).fact
    events = client.watch(0, [fact.id])
    while next(events).kind is not EventKind.LEARNING:
        pass
    return events


def health_of(server: RunningServer) -> Any:
    channel = server.clients.enter_context(grpc.insecure_channel(server.address))
    return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())


class OpenStream:
    """A teacher who has taught one fact and keeps the call open; ends with the server."""

    def __init__(self, server: RunningServer) -> None:
        self._requests: queue.SimpleQueue[pb.TeachStreamRequest | None] = queue.SimpleQueue()
        channel = server.clients.enter_context(grpc.insecure_channel(server.address))
        stub: Any = memory_pb2_grpc.MemoryServiceStub(channel)
        self._call = stub.TeachStream(iter(self._requests.get, None))
        teach = pb.TeachRequest(question="Gem?", answer="Curtain")
        self._requests.put(pb.TeachStreamRequest(teach=teach))
        self.accepted = next(self._call)

    def end(self) -> None:
        with pytest.raises((grpc.RpcError, StopIteration)):
            next(self._call)
        self._requests.put(None)


def test_sigterm_finishes_the_update_ends_the_streams_and_empties_the_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as server:
        health = health_of(server)
        events = begin_update(server, steps=60)
        teacher = OpenStream(server)
        assert teacher.accepted.HasField("accepted")
        answer = server.client().ask_stream("Gem?", 64)
        next(answer)
        server.process.send_signal(signal.SIGTERM)
        # Load balancers see it leave at once, while it still works.
        assert next(answer.status for answer in health if answer.status == NOT_SERVING)
        assert isinstance(list(answer)[-1], Reply)  # to its end
        assert server.process.wait(PATIENCE_SECONDS) == 0
        list(events)  # ends, and without an error
        teacher.end()
    left = contents(data)
    assert {fact.question: fact.state for fact in left.facts} == {
        "Sky?": FactState.LEARNED,
        "Gem?": FactState.QUEUED,
    }
    assert [len(update.steps) for update in left.updates] == [60]
    log = data / "memory.db-wal"
    assert not log.exists() or log.stat().st_size == 0


def test_a_second_signal_ends_it_in_the_middle_of_an_update(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as server:
        learner = server.learner_pid()
        health = health_of(server)
        begin_update(server, steps=1000)
        server.process.send_signal(signal.SIGTERM)
        assert next(answer.status for answer in health if answer.status == NOT_SERVING)
        assert server.process.poll() is None  # it drains
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM  # drained: 0
        until(lambda: not is_alive(learner), "the learner's end", 15)
    # Nothing of it happened, and it is learned at the next start.
    left = contents(data)
    assert (len(left.facts), left.updates) == (1, [])


def test_a_server_that_stops_leaves_a_snapshot_of_its_head(tmp_path: Path) -> None:
    """H1: the next release may be unable to replay what this one learned."""
    data = tmp_path / "data"
    with running(data) as server:
        events = begin_update(server, steps=20)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_SECONDS) == 0
        list(events)
    (update,) = contents(data).updates
    assert is_snapshot_of(data / "snapshots", update.model_version, update.digest_after)
    with running(data) as server:
        assert "version 1: replayed 0 updates" in server.log.read_text()
