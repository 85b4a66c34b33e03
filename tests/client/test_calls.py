"""The client's side of every call: its deadline, its repetition, and a server gone silent."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import grpc
import pytest

from agent.client import calls, channel, client, connection
from agent.client.client import Client
from agent.client.patience import Patience
from agent.errors import AgentError, ServerUnreachableError, WaitTimeoutError
from agent.wire.error_details import RequestError
from continual.v1 import memory_pb2 as pb
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, FactState, NewFact
from tests.cli.conftest import in_thread
from tests.store.builders import learning, new_fact, record_known

TEACH, FORGET = (f"/continual.v1.MemoryService/{name}" for name in ("Teach", "Forget"))
CALLS: dict[str, Callable[[Client], Any]] = {
    "wait_accepting": lambda c: c.wait_accepting(0),
    "wait_ready": lambda c: c.wait_ready(0),
    "teach": lambda c: c.teach("Sky?", "Piano"),
    "teach_fact": lambda c: c.teach_fact(NewFact(question="Sky?", answer="Piano")),
    "teach_many": lambda c: list(c.teach_many([NewFact(question="Sky?", answer="Piano")])),
    "teach_batch": lambda c: c.teach_batch([NewFact(question="Sky?", answer="Piano")]),
    "forget": lambda c: c.forget("the-sky"),
    "retry_fact": lambda c: c.retry_fact("the-sky"),
    "rollback": lambda c: c.rollback(0),
    "operation": lambda c: c.operation(1),
    "operations": lambda c: list(c.operations()),
    "cancel_operation": lambda c: c.cancel_operation(1),
    "wait_operation": lambda c: c.wait_operation(1),
    "explain": lambda c: c.explain("Sky?"),
    "snapshots": lambda c: c.snapshots(),
    "create_snapshot": lambda c: c.create_snapshot(),
    "verify_snapshots": lambda c: c.verify_snapshots(),
    "prune_snapshots": lambda c: c.prune_snapshots(),
    "compact": lambda c: c.compact(),
    "export": lambda c: c.export("/folder"),
    "backup": lambda c: c.backup("/folder"),
    "fact": lambda c: c.fact("the-sky"),
    "history": lambda c: c.history("the-sky"),
    "forgetting": lambda c: c.forgetting("the-sky"),
    "facts": lambda c: list(c.facts()),
    "watch": lambda c: list(c.watch(0)),
    "wait": lambda c: c.wait(["the-sky"]),
    "settle": lambda c: list(c.settle(["the-sky"])),
    "ask": lambda c: c.ask("Sky?"),
    "ask_stream": lambda c: list(c.ask_stream("Sky?")),
    "score": lambda c: c.score("Sky?", "Piano"),
    "probe": lambda c: list(c.probe()),
    "status": lambda c: c.status(),
    "retention": lambda c: c.retention(),
    "pause_learning": lambda c: c.pause_learning(),
}


class Recording(grpc.GenericRpcHandler):  # type: ignore[type-arg] # only in stubs
    """Answers every call with one status, and keeps what it was called with."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code = code
        self.calls: list[tuple[str, float | None, bytes]] = []

    def service(self, details: Any) -> Any:
        def answer(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            self.calls.append((details.method, context.time_remaining(), next(requests)))
            context.abort(self.code, "no")
            yield b""

        return grpc.stream_stream_rpc_method_handler(answer)


@contextlib.contextmanager
def recording(code: grpc.StatusCode) -> Iterator[tuple[Recording, Client]]:
    handler = Recording(code)
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}") as asking:
            yield handler, asking
    finally:
        server.stop(None).wait()


def test_every_call_has_a_deadline() -> None:
    public = {name for name, value in vars(Client).items() if name[0] != "_" and callable(value)}
    assert set(CALLS) == public - {"close"}
    with recording(grpc.StatusCode.INTERNAL) as (handler, asking):
        for name, call in CALLS.items():
            handler.calls.clear()
            with pytest.raises(RequestError):
                call(asking)
            [(_, remaining, _)] = handler.calls
            assert remaining is not None, name
            assert remaining < 1.1 * calls.PROBE_DEADLINE_SECONDS, name


def test_what_may_be_repeated_is_with_the_same_request_id() -> None:
    with recording(grpc.StatusCode.UNAVAILABLE) as (handler, asking):
        with pytest.raises(RequestError):
            asking.teach("Sky?", "Piano")
        assert [method for method, _, _ in handler.calls] == [TEACH] * 4
        ids = {pb.TeachRequest.FromString(request).request_id for _, _, request in handler.calls}
        assert len(ids) == 1
        assert ids != {""}


def test_what_may_not_be_is_not() -> None:
    with recording(grpc.StatusCode.UNAVAILABLE) as (handler, asking):
        with pytest.raises(RequestError):
            asking.forget("the-sky")
        assert [method for method, _, _ in handler.calls] == [FORGET]


@pytest.mark.parametrize("code", ["INTERNAL", "RESOURCE_EXHAUSTED", "ABORTED", "UNAUTHENTICATED"])
def test_no_other_status_is_repeated(code: str) -> None:
    with recording(grpc.StatusCode[code]) as (handler, asking):
        for call in (CALLS["teach"], CALLS["ask"]):
            handler.calls.clear()
            with pytest.raises(RequestError):
                call(asking)
            assert len(handler.calls) == 1


def test_events_are_watched_beyond_the_deadline_of_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "WATCH", replace(calls.WATCH, deadline_seconds=0.3))
    with in_thread(tmp_path) as running, Client(running.address) as watching:
        events = watching.watch(0)
        running.write(lambda store: store.teach(new_fact("One?")))
        assert next(events).sequence == 1
        # The generator makes its calls in this thread: it meets the deadline while it waits.
        later = threading.Timer(
            0.7, lambda: running.write(lambda store: store.teach(new_fact("Two?")))
        )
        later.start()
        second = next(events)
        assert (second.sequence, second.kind) == (2, EventKind.ACCEPTED)
        later.join()


def test_watching_from_now_on_misses_nothing_between_two_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "WATCH", replace(calls.WATCH, deadline_seconds=0.2))
    with in_thread(tmp_path) as running, Client(running.address) as watching:
        running.write(lambda store: store.teach(new_fact("Before?")))
        later = threading.Timer(
            0.5, lambda: running.write(lambda store: store.teach(new_fact("After?")))
        )
        later.start()
        assert next(watching.watch()).sequence == 2
        later.join()


def test_who_waits_gives_a_server_that_stops_time(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = ServerUnreachableError("gone")
    slept: list[float] = []
    monkeypatch.setattr("agent.client.client.time.sleep", slept.append)
    monkeypatch.setattr(Client, "status", lambda self: Mock(event_sequence=0))
    monkeypatch.setattr(Client, "fact", lambda self, _: Mock(state=FactState.QUEUED))
    ended = [MagicMock() for _ in range(2)]  # streams without an event
    monkeypatch.setattr(Client, "watch", Mock(side_effect=[*ended, gone]))
    with Client("127.0.0.1:1") as waiting, pytest.raises(ServerUnreachableError):
        waiting.wait(["the-sky"])
    assert slept == [client.STOPPING_SECONDS] * 2


@contextlib.contextmanager
def black_hole(address: str) -> Iterator[tuple[str, threading.Event]]:
    """A way to a server on which everything is lost once the event is set; nobody hangs up."""
    lost = threading.Event()
    host, _, port = address.rpartition(":")
    sockets = [socket.create_server(("127.0.0.1", 0))]

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while received := source.recv(65536):
                if not lost.is_set():
                    target.sendall(received)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = sockets[0].accept()
                far = socket.create_connection((host, int(port)))
                sockets.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{sockets[0].getsockname()[1]}", lost
    finally:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def test_a_server_that_is_gone_without_a_word_is_noticed_while_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "KEEPALIVE_SECONDS", 0.2)
    monkeypatch.setattr(channel, "KEEPALIVE_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.1)
    with in_thread(tmp_path) as running, black_hole(running.address) as (address, lost):
        running.write(lambda store: store.teach(new_fact("One?")))
        with Client(address) as watching:
            events = watching.watch(0)
            assert next(events).sequence == 1
            lost.set()
            with pytest.raises(AgentError):
                next(events)


def test_waiting_ends_in_time(tmp_path: Path) -> None:
    """Low: `Client.wait` had no timeout. Nothing is learned here, whatever is waited for."""
    with in_thread(tmp_path) as server, Client(server.address) as asking:
        done = asking.teach("Done?", "Piano", fact_id="done").fact
        waits = asking.teach("Waits?", "Piano", fact_id="waits").fact

        def learn(store: MemoryStore) -> None:
            store.claim()
            record_known(store, done.id, learning())

        server.write(learn)
        settled = asking.settle([done.id, waits.id], timeout=0.01)
        assert next(settled).state is FactState.KNOWN
        with pytest.raises(WaitTimeoutError, match=r"waiting for waits after 0\.01 s"):
            next(settled)
        operation, _ = asking.forget(waits.id)
        with pytest.raises(WaitTimeoutError, match=f"operation {operation.id}"):
            asking.wait_operation(operation.id, timeout=0.01)


def test_patience_is_over_when_its_seconds_are() -> None:
    """Low: by a clock of the test."""
    now = [0.0]
    patience = Patience(10, lambda: now[0])
    now[0] = 9.5
    assert patience.left() == 0.5
    patience.require(["fact"])
    now[0] = 10.5
    assert patience.left() == 0.0
    with pytest.raises(WaitTimeoutError, match="waiting for fact after 10 s"):
        patience.require(["fact"])
    assert Patience(None).left() is None
