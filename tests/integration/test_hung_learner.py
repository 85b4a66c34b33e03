"""A learner process that stands still (SIGSTOP) is noticed and replaced (M9)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memory_store.vocabulary import EventKind, NewFact
from tests.integration.servers import (
    LONG,
    PATIENCE_SECONDS,
    contents,
    is_alive,
    running,
)

pytestmark = pytest.mark.slow

# As short as a busy machine allows.
IMPATIENT = ("--silent-seconds", "6")


def states(channel: grpc.Channel) -> Iterator[str]:
    """The health of questions, now and at each change."""
    request = health_pb2.HealthCheckRequest(service="continual.v1.ModelService")
    for answer in health_pb2_grpc.HealthStub(channel).Watch(request, timeout=PATIENCE_SECONDS):
        yield health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def test_one_that_stops_in_an_update_is_replaced_and_health_tells(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, options=IMPATIENT) as server, grpc.insecure_channel(server.address) as asked:
        health = states(asked)
        assert next(health) == "SERVING"
        client = server.client()
        long = client.teach_fact(NewFact(question="Long?", answer="Update", policy=LONG)).fact.id
        stopped = server.learner_pid()
        for event in client.watch(0):
            if event.kind is EventKind.STEP:
                os.kill(stopped, signal.SIGSTOP)
                break
        assert next(health) == "NOT_SERVING"
        assert not is_alive(stopped)
        assert next(health) == "SERVING"
        client.wait([long])
        found = contents(data)
        found.require_each_learned_once()
        [down] = [event for event in found.events if event.kind is EventKind.LEARNER_DOWN]
        assert "hung" in down.message
