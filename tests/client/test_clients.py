"""One source for both clients: the table of calls fits the protocol, and the twin is up to date."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2

from agent.client import async_client, calls, client
from agent.client.calls import Call
from agent.wire.methods import METHODS
from continual.v1 import admin_pb2, memory_pb2, model_pb2

TABLE = {name: call for name, call in vars(calls).items() if isinstance(call, Call)}
RPCS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for module in (memory_pb2, model_pb2, admin_pb2, health_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@pytest.mark.parametrize("name", TABLE)
def test_a_call_has_the_messages_of_its_rpc_and_a_row_of_methods(name: str) -> None:
    call = TABLE[name]
    assert call.request.DESCRIPTOR is RPCS[call.rpc].input_type
    assert call.response.DESCRIPTOR is RPCS[call.rpc].output_type
    assert call.rpc in METHODS
    assert call.deadline_seconds > 0


def test_every_rpc_of_ours_is_called() -> None:
    ours = {rpc for rpc in RPCS if rpc.startswith("/continual.")}
    assert ours <= {call.rpc for call in TABLE.values()}
    source = inspect.getsource(client.Client)
    assert [name for name in TABLE if f"calls.{name}" not in source] == []


def test_both_clients_are_alike_but_for_waiting() -> None:
    blocking, waiting = vars(client.Client), vars(async_client.AsyncClient)
    public = {name for name in blocking if not name.startswith("_")}
    assert public == {name for name in waiting if not name.startswith("_")}
    for name in public:
        ours, theirs = blocking[name], waiting[name]
        assert inspect.getdoc(ours) == inspect.getdoc(theirs)
        assert not inspect.iscoroutinefunction(ours)
        returned = str(inspect.signature(theirs).return_annotation)
        assert inspect.iscoroutinefunction(theirs) is not returned.startswith("Async"), name


def test_the_blocking_client_is_what_its_source_generates() -> None:
    script = Path(__file__).parents[2] / "scripts" / "generate_client.py"
    subprocess.run([sys.executable, script, "--check"], check=True)
