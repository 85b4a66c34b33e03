"""One trace from the call that teaches a fact to the moment its weights are served."""

from __future__ import annotations

import asyncio
import builtins
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agent.errors import ConfigError
from agent.server.api.call_observer import ObservingInterceptor
from agent.server.api.events import EventHub
from agent.server.api.memory_servicer import MemoryServicer
from agent.server.loop.learning_loop import LearningLoop
from agent.server.loop.serving import Hooks, LoopSettings
from agent.server.telemetry.observer import Observer
from agent.server.telemetry.otel import OpenTelemetry
from agent.server.telemetry.tracing import NO_TRACING, tracing_to
from agent.wire.status import StatusInterceptor
from agent.wire.validation import FactRules
from continual.v1 import memory_pb2 as pb
from continual.v1 import memory_pb2_grpc
from memory_store import acceptance
from memory_store.vocabulary import FactState
from memory_store.writer import StoreThreads
from tests.loop.conftest import POLICY
from tests.loop.fake_learner import Machine
from tests.server.serving import MAX_TOKENS, byte_tokenizer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENT = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),)


class Traced:
    """What one process of a server would be: a memory, and where its spans go."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.tracing = OpenTelemetry(SimpleSpanProcessor(self.spans))

    def named(self, name: str) -> ReadableSpan:
        [span] = [span for span in self.spans.get_finished_spans() if span.name == name]
        return span

    async def teach(self, path: Path, *requests: pb.TeachRequest, metadata: Any = SENT) -> None:
        """Serves the memory and teaches; nothing is learned."""
        async with AsyncExitStack() as ends:
            store = await StoreThreads.open(path)
            ends.push_async_callback(store.close)
            rules = FactRules(byte_tokenizer(), MAX_TOKENS)
            servicer = MemoryServicer(
                *(store, lambda: rules, EventHub(), lambda: None), self.tracing.traceparent
            )
            interceptor = ObservingInterceptor(lambda *_: None, self.tracing)
            server = grpc.aio.server(interceptors=[interceptor, StatusInterceptor()])
            ends.push_async_callback(server.stop, None)
            memory_pb2_grpc.add_MemoryServiceServicer_to_server(servicer, server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            stub: Any = memory_pb2_grpc.MemoryServiceStub(await ends.enter_async_context(channel))
            for request in requests:
                await stub.Teach(request, metadata=metadata)

    async def learn(self, path: Path, fact_id: str) -> None:
        """Runs the learning loop on the memory until the fact is learned."""
        store = await StoreThreads.open(path)
        observer = Observer(store, tracing=self.tracing)
        settings = LoopSettings(model="fake", policy=POLICY, snapshots=path.parent / "snapshots")
        loop = LearningLoop(
            store,
            Machine().start,
            settings,
            Hooks(
                publish=lambda event: observer.stepped(event.step) if event.step else None,
                on_update=observer.updated,
                around=observer.learning,
            ),
        )
        running = asyncio.create_task(loop.run())
        async with asyncio.timeout(30):
            while (await store.read(lambda s: s.fact(fact_id))).state is not FactState.LEARNED:
                await asyncio.sleep(0.01)
        loop.stop()
        await running
        await store.close()


async def test_a_fact_is_learned_in_the_trace_of_the_call_that_taught_it(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    before, after = Traced(), Traced()  # the server is restarted in between
    request = pb.TeachRequest(question="Sky?", answer="right", fact_id="fact-1")
    await before.teach(path, request)
    await after.learn(path, "fact-1")

    taught, waited, learned = (
        before.named("MemoryService/Teach"),
        after.named("queue"),
        after.named("learn"),
    )
    for span in (taught, waited, learned):
        assert span.context is not None
        assert f"{span.context.trace_id:032x}" == TRACE
    assert taught.context is not None
    for span in (waited, learned):
        assert span.parent is not None
        assert span.parent.span_id == taught.context.span_id
    assert learned.attributes is not None
    assert learned.attributes["fact.id"] == "fact-1"
    assert learned.attributes["model_version"] == 1
    assert [event.name for event in learned.events] == ["step"] * len(learned.events)
    assert len(learned.events) > 0
    # The next call is not in a trace of another's.
    assert before.tracing.traceparent() is None


async def test_a_fact_taught_without_tracing_is_learned_in_a_trace_of_its_own(
    tmp_path: Path,
) -> None:
    path = tmp_path / "memory.db"
    store = await StoreThreads.open(path)
    servicer = MemoryServicer(
        *(store, lambda: FactRules(byte_tokenizer(), MAX_TOKENS), EventHub(), lambda: None),
        NO_TRACING.traceparent,
    )
    request = pb.TeachRequest(question="Sky?", answer="right", fact_id="fact-1")
    await servicer.Teach(request, None)  # type: ignore[arg-type]
    assert await store.read(lambda store: acceptance.traceparent(store.connection, 1)) is None
    await store.close()
    traced = Traced()
    await traced.learn(path, "fact-1")
    assert traced.named("learn").parent is None


async def test_a_call_that_is_refused_is_marked_and_timed(tmp_path: Path) -> None:
    traced = Traced()
    with pytest.raises(grpc.aio.AioRpcError):
        await traced.teach(tmp_path / "memory.db", pb.TeachRequest(question=""), metadata=())
    span = traced.named("MemoryService/Teach")
    assert span.parent is None
    assert not span.status.is_ok


def test_without_opentelemetry_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracing_to("") is NO_TRACING
    original = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "agent.server.telemetry.otel":
            raise ImportError("no module", name="opentelemetry")
        return original(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"continual-agent\[tracing\]"):
        tracing_to("http://127.0.0.1:4318/v1/traces")


def test_a_collector_that_is_gone_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("agent.server.telemetry.otel.CLOSE_SECONDS", 0.01)
    back = threading.Event()

    class Stuck(SimpleSpanProcessor):
        def shutdown(self) -> None:
            back.wait()

    OpenTelemetry(Stuck(InMemorySpanExporter())).close()
    back.set()
    assert "spans are lost" in caplog.text
