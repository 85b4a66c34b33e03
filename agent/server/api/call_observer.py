"""The interceptor that measures calls and opens their spans."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from agent.server.telemetry.tracing import Tracing
from agent.wire.methods import kind_of
from agent.wire.status import OUR_SERVICES

# Method, name of the status code, seconds.
Called = Callable[[str, str, float], None]
CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class ObservingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # only in stubs
    """Comes before all other interceptors, so that it sees what clients see.

    Args:
        called: called at the end of each call, with method, code and seconds.
        tracing: receives the spans.
    """

    def __init__(self, called: Called, tracing: Tracing) -> None:
        self._called = called
        self._tracing = tracing

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler of a method with a timer, except for health and reflection."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        # An unknown method is not counted: a client may invent any number of names.
        if handler is None or not method.startswith(OUR_SERVICES):
            return handler
        method = method.rpartition(".")[2]  # Service/Method
        kind = kind_of(handler)
        wrap = self._wrap_stream if handler.response_streaming else self._wrap_unary
        return handler._replace(**{kind: wrap(getattr(handler, kind), method)})

    def _wrap_unary(self, behavior: Callable[[Any, Any], Awaitable[Any]], method: str) -> Any:
        async def unary(request: Any, context: Any) -> Any:
            with self._observed(method, context):
                return await behavior(request, context)

        return unary

    def _wrap_stream(self, behavior: Callable[[Any, Any], Any], method: str) -> Any:
        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._observed(method, context):
                responses = behavior(request, context)
                if not hasattr(responses, "__aiter__"):
                    await responses  # the handler writes to the context, or only refuses
                    return
                async for response in responses:
                    yield response

        return stream

    @contextmanager
    def _observed(self, method: str, context: Any) -> Iterator[None]:
        started = time.perf_counter()
        code = "UNKNOWN"
        with self._tracing.serving(method, context.invocation_metadata() or ()):
            try:
                yield
                code = _code(context)
            except grpc.aio.AbortError:
                code = _code(context)
                # Already answered. The exception would only repeat the code in the span.
                raise
            except (asyncio.CancelledError, GeneratorExit):
                code = grpc.StatusCode.CANCELLED.name
                raise
            finally:
                self._tracing.note(code=code)
                self._called(method, code, time.perf_counter() - started)


def _code(context: Any) -> str:
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else CODES.get(code or 0, "UNKNOWN")
