"""The interceptor for access: tokens, roles, rate limits and open streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

import grpc

from agent.errors import AgentError, NotAllowedError, NotAuthenticatedError, RateLimitedError
from agent.server.access.rate_limit import RateLimiter
from agent.server.access.tokens import KnownTokens, Token
from agent.server.api.streams import OpenStreams
from agent.wire.error_details import encode_status
from agent.wire.methods import METHODS, UNKNOWN, Method, kind_of
from agent.wire.peers import host_of
from agent.wire.status import status_of

SCHEME = "bearer "


class AccessInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # only in stubs
    """Checks every call before its request is read.

    Args:
        tokens: the known tokens; None to admit everyone as an admin.
        limiter: limits the calls of each client; None for no limit. A stream of requests is not
            refused, but read no faster than the limit.
        clock: a monotonic clock in seconds, for the limiter.

    Attributes:
        streams: the open streams.
    """

    def __init__(
        self,
        tokens: KnownTokens | None,
        limiter: RateLimiter | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._limiter = limiter
        self._clock = clock
        self.streams = OpenStreams()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Returns the handler, wrapped with the limits, or a handler that refuses the call."""
        handler = await continuation(handler_call_details)
        method = METHODS.get(handler_call_details.method, UNKNOWN)
        if handler is None or method.role is None:
            return handler
        token = None
        if self._tokens is not None:
            try:
                token = _authenticated(self._tokens, handler_call_details)
                _require_allowed(token, method, handler_call_details.method)
            except (NotAuthenticatedError, NotAllowedError) as error:
                return self._refusing(error, token)
        if self._limiter is not None:
            handler = self._limiting(handler, self._limiter, token)
        if handler.response_streaming:
            return self._guarding(handler, token, method, handler_call_details.method)
        return handler

    def _refusing(self, error: AgentError, token: Token | None) -> Any:
        """Makes a handler that refuses any kind of call, without reading a request."""

        async def refuse(requests: object, context: Any) -> None:
            try:
                # Guesses of tokens are limited too.
                self._take(_client(context, token))
            except RateLimitedError as limited:
                await _abort(context, limited)
            await _abort(context, error)

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _limiting(self, handler: Any, limiter: RateLimiter, token: Token | None) -> Any:
        kind = kind_of(handler)
        behavior = getattr(handler, kind)

        async def admitted(request: Any, context: Any) -> Any:
            client = _client(context, token)
            if handler.request_streaming:
                return self._paced(request, limiter, client)
            try:
                self._take(client, facts_in(request))
            except RateLimitedError as error:
                await _abort(context, error)
            return request

        async def unary(request: Any, context: Any) -> Any:
            return await behavior(await admitted(request, context), context)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async for response in behavior(await admitted(request, context), context):
                yield response

        return handler._replace(**{kind: stream if handler.response_streaming else unary})

    def _guarding(self, handler: Any, token: Token | None, method: Method, name: str) -> Any:
        """Makes a stream that is counted, and ends when its token is revoked or loses its role."""
        kind = kind_of(handler)
        behavior = getattr(handler, kind)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            client = _client(context, token)
            if (full := self.streams.full(client)) is not None:
                await _abort(context, full)
            with self.streams.opened(client, partial(self._refusal, token, method, name)) as opened:
                try:
                    async with aclosing(behavior(request, context)) as responses:
                        async for response in responses:
                            opened.is_sending = True
                            yield response
                            opened.is_sending = False
                            if opened.ended is not None:
                                await _abort(context, opened.ended)
                except asyncio.CancelledError:
                    if opened.ended is None:
                        raise
                    await _abort(context, opened.ended)

        return handler._replace(**{kind: stream})

    def _refusal(self, token: Token | None, method: Method, name: str) -> AgentError | None:
        """Returns why a token is no longer admitted; None if it is."""
        if self._tokens is None or token is None:
            return None
        now = self._tokens.current(token)
        if now is None:
            return NotAuthenticatedError("the token was revoked")
        try:
            _require_allowed(now, method, name)
        except NotAllowedError as error:
            return error
        return None

    def _take(self, client: str, calls: int = 1) -> None:
        wait = self._limiter.take(client, self._clock(), calls) if self._limiter else 0.0
        if wait:
            raise RateLimitedError(
                f"more calls than this server lets one client make: try again in {wait:.3f} s", wait
            )

    async def _paced(
        self, requests: AsyncIterator[Any], limiter: RateLimiter, client: str
    ) -> AsyncIterator[Any]:
        async for request in requests:
            while wait := limiter.take(client, self._clock()):
                await asyncio.sleep(wait)
            yield request


def _authenticated(tokens: KnownTokens, details: grpc.HandlerCallDetails) -> Token:
    headers = [value for key, value in details.invocation_metadata if key == "authorization"]
    if len(headers) != 1 or not isinstance(headers[0], str):
        raise NotAuthenticatedError(
            "this server wants a token: give it by --token-file FILE or AGENT_TOKEN"
            " (as metadata 'authorization: Bearer TOKEN')"
        )
    scheme, presented = headers[0][: len(SCHEME)], headers[0][len(SCHEME) :]
    token = tokens.find(presented) if scheme.lower() == SCHEME else None
    if token is None:
        raise NotAuthenticatedError("the token is not known here: it is mistyped, or was revoked")
    return token


def _require_allowed(token: Token, method: Method, name: str) -> None:
    if method.role is not None and not token.role.may(method.role):
        raise NotAllowedError(
            f"{name.rpartition('/')[2]} needs a token of role {method.role}, and this one has"
            f" {token.role}"
        )


def facts_in(request: Any) -> int:
    """Returns how many calls a request counts as: one, or the number of facts of a batch."""
    return max(1, len(getattr(request, "facts", ())))


def _client(context: Any, token: Token | None) -> str:
    """Returns the client that a call counts for: its token, or else its host."""
    if token is not None:
        return token.id
    return host_of(context.peer())


async def _abort(context: Any, error: AgentError) -> None:
    refusal = status_of(error)
    if isinstance(error, RateLimitedError):
        refusal = replace(refusal, retry_seconds=error.retry_after_seconds)
    status = encode_status(refusal)
    await context.abort(status.code, status.details, status.trailing_metadata)
