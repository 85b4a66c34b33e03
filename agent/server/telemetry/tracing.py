"""Tracing: one trace from the call that teaches a fact to the moment its weights are served.

The two are far apart: learning comes later, maybe after a restart. So the context of the call is
stored with the fact (W3C `traceparent`), and learning joins its trace.

OpenTelemetry is an extra. Here are only the calls that the server makes; without it they do
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Protocol

from agent.errors import ConfigError

Metadata = Sequence[tuple[str, str | bytes]]


class Tracing(Protocol):
    """What the server tells of its work."""

    @property
    def on(self) -> bool:
        """Whether anybody listens: what it costs to ask for is not asked for otherwise."""
        ...

    def serving(self, method: str, metadata: Metadata) -> AbstractContextManager[None]:
        """A span around a call, in the client's trace if it sent one."""
        ...

    def traceparent(self) -> str | None:
        """The span in hand, to be stored; None if there is none."""
        ...

    def learning(
        self, fact_id: str, accepted_at: datetime, traceparent: str | None
    ) -> AbstractContextManager[None]:
        """A span around the learning of a fact, in the trace of the call that taught it."""
        ...

    def note(self, **attributes: str | int | float) -> None:
        """Attributes of the span in hand."""
        ...

    def event(self, name: str, **attributes: str | int | float) -> None:
        """Something that happened in the span in hand."""
        ...

    def close(self) -> None:
        """Sends what is left, in some seconds; may be called in any thread."""
        ...


class NoTracing:
    """Nobody listens."""

    on = False

    def serving(self, method: str, metadata: Metadata) -> AbstractContextManager[None]:
        """No span."""
        return nullcontext()

    def traceparent(self) -> str | None:
        """Nothing to be stored."""
        return None

    def learning(
        self, fact_id: str, accepted_at: datetime, traceparent: str | None
    ) -> AbstractContextManager[None]:
        """No span."""
        return nullcontext()

    def note(self, **attributes: str | int | float) -> None:
        """Not noted."""

    def event(self, name: str, **attributes: str | int | float) -> None:
        """Not noted."""

    def close(self) -> None:
        """Nothing is left."""


NO_TRACING = NoTracing()


def tracing_to(endpoint: str) -> Tracing:
    """Sends spans to an OTLP collector over HTTP; empty: to nobody.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    if not endpoint:
        return NO_TRACING
    try:
        from agent.server.telemetry.otel import OpenTelemetry
    except ImportError as error:
        raise ConfigError(
            f"--trace-to needs OpenTelemetry ({error.name} is not installed):"
            " pip install 'continual-agent[tracing]'"
        ) from error
    return OpenTelemetry.sending_to(endpoint)
