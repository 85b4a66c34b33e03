"""Tracing by OpenTelemetry; imported only where spans are sent somewhere."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Token
from datetime import datetime
from importlib.metadata import version
from typing import Self
from urllib.parse import urlsplit

import requests
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agent.addresses import is_loopback
from agent.server.telemetry.tracing import Metadata, Tracing

NAME = "continual-agent"
TRACEPARENT = "traceparent"
# A server that stops waits no longer than this for a collector.
CLOSE_SECONDS = 5.0

logger = logging.getLogger(__name__)


class OpenTelemetry(Tracing):
    """Sends spans.

    Args:
        processor: receives the spans that have ended.
    """

    on = True

    def __init__(self, processor: SpanProcessor) -> None:
        resource = Resource.create({SERVICE_NAME: NAME, SERVICE_VERSION: version(NAME)})
        # Our own, not the global one: the process may be embedded in a traced application.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(NAME)
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def sending_to(cls, endpoint: str) -> Self:
        """Sends spans in batches, from a thread."""
        return cls(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, session=_session(endpoint)))
        )

    @contextmanager
    def serving(self, method: str, metadata: Metadata) -> Iterator[None]:
        """See `Tracing`."""
        sent = {key: value for key, value in metadata if isinstance(value, str)}
        span = self._tracer.start_span(
            method,
            context=self._propagator.extract(sent, context=context.Context()),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.method": method},
        )
        token: Token[context.Context] | None = context.attach(trace.set_span_in_context(span))
        try:
            yield
        except GeneratorExit:
            # An abandoned stream is closed by another task, where this span is not the current one.
            token = None
            raise
        finally:
            if token is not None:
                context.detach(token)
            span.end()

    def traceparent(self) -> str | None:
        """See `Tracing`."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get(TRACEPARENT)

    @contextmanager
    def learning(
        self, fact_id: str, accepted_at: datetime, traceparent: str | None
    ) -> Iterator[None]:
        """See `Tracing`."""
        carrier = {TRACEPARENT: traceparent} if traceparent else {}
        parent = self._propagator.extract(carrier, context=context.Context())
        attributes = {"fact.id": fact_id}
        waited = self._tracer.start_span(
            "queue",
            context=parent,
            attributes=attributes,
            start_time=int(accepted_at.timestamp() * 1e9),
        )
        waited.end()
        with self._tracer.start_as_current_span(
            "learn", context=parent, kind=SpanKind.CONSUMER, attributes=attributes
        ):
            yield

    def note(self, **attributes: str | int | float) -> None:
        """See `Tracing`."""
        span = trace.get_current_span()
        span.set_attributes(attributes)
        if attributes.get("code", "OK") != "OK":
            span.set_status(Status(StatusCode.ERROR))

    def event(self, name: str, **attributes: str | int | float) -> None:
        """See `Tracing`."""
        trace.get_current_span().add_event(name, attributes)

    def close(self) -> None:
        """See `Tracing`."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        if ending.is_alive():
            logger.warning("the last spans are lost: the collector does not accept them")


def _session(endpoint: str) -> requests.Session | None:
    """A session without a proxy, which could read the spans; None for the default one.

    Over TLS to another machine, a proxy of the environment only passes bytes on, so it is used.
    """
    url = urlsplit(endpoint)
    if url.scheme == "https" and not is_loopback(f"{url.hostname}:0"):
        return None
    session = requests.Session()
    session.trust_env = False
    return session
