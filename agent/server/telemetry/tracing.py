"""Tracing: one trace from the call that teaches a fact to the moment its weights are served.

The two are far apart: learning comes later, maybe after a restart. So the context of the call is
stored with the fact (W3C `traceparent`), and learning joins its trace.

OpenTelemetry is an extra. Without it, the calls of `Tracing` do nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime

from agent.errors import ConfigError

Metadata = Sequence[tuple[str, str | bytes]]


class Tracing:
    """Spans of the server's work. These are sent nowhere; see `OpenTelemetry` for others.

    Attributes:
        on: whether spans are sent: otherwise nothing is looked up for them.
    """

    on = False

    def serving(self, method: str, metadata: Metadata) -> AbstractContextManager[None]:
        """A span around a call, in the client's trace if it sent one."""
        return nullcontext()

    def traceparent(self) -> str | None:
        """The current span as a W3C header, to be stored; None if there is none."""
        return None

    def learning(
        self, fact_id: str, accepted_at: datetime, traceparent: str | None
    ) -> AbstractContextManager[None]:
        """Two spans in the trace of the call that taught a fact: its wait, and its learning."""
        return nullcontext()

    def note(self, **attributes: str | int | float) -> None:
        """Sets attributes of the current span; `code` other than OK marks it as failed."""

    def event(self, name: str, **attributes: str | int | float) -> None:
        """Adds an event to the current span."""

    def close(self) -> None:
        """Sends what is left, within seconds; may be called in any thread."""


NO_TRACING = Tracing()


def tracing_to(endpoint: str) -> Tracing:
    """Sends spans to an OTLP collector over HTTP; nowhere if `endpoint` is empty.

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
