"""Makes the calls of the table over gRPC, for threads and for asyncio, with our errors."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
)
from typing import Any, TypeVar

import grpc

from agent.client.calls import Call, RequestT, ResponseT, ResultT
from agent.client.channel import Access, open_async_channel, open_channel
from agent.errors import AgentError, HandshakeFailedError, ServerUnreachableError
from agent.wire.error_details import RequestError, decode_error

CONNECT_SECONDS = 1.0

ItemT = TypeVar("ItemT")


class Connection:
    """Calls that block. Thread-safe.

    Args:
        address: HOST:PORT.
        access: certificates and token.

    Raises:
        ConfigError: the files that `access` names cannot be used.
    """

    def __init__(self, address: str, access: Access) -> None:
        self._address = address
        self._channel, self._metadata = open_channel(address, access)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def call(self, call: Call[RequestT, ResponseT, ResultT], request: RequestT) -> ResultT:
        """One request, one response."""
        method = self._channel.unary_unary(call.rpc, *_converters(call))
        try:
            response = method(request, timeout=call.deadline_seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise failure(error, self._address, self._connected) from error
        return call.decode(response)

    def stream(
        self, call: Call[RequestT, ResponseT, ResultT], request: RequestT
    ) -> Generator[ResultT, None, None]:
        """One request, many responses."""
        method = self._channel.unary_stream(call.rpc, *_converters(call))
        return self._responses(call, method, request)

    def exchange(
        self,
        call: Call[RequestT, ResponseT, ResultT],
        encode: Callable[[ItemT], RequestT],
        items: Iterable[ItemT],
    ) -> Generator[ResultT, None, None]:
        """A request for each item, while responses are read."""
        method = self._channel.stream_stream(call.rpc, *_converters(call))
        return self._responses(call, method, map(encode, items))

    def _responses(
        self, call: Call[RequestT, ResponseT, ResultT], method: Any, request: object
    ) -> Generator[ResultT, None, None]:
        responses = method(request, timeout=call.deadline_seconds, metadata=self._metadata)
        try:
            for response in responses:
                yield call.decode(response)
        except grpc.RpcError as error:
            raise failure(error, self._address, self._connected) from error
        finally:
            responses.cancel()  # if the caller stops reading; does nothing after the end

    def _connected(self) -> bool:
        try:
            grpc.channel_ready_future(self._channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            return False
        return True


class AsyncConnection:
    """The same for asyncio, in the event loop it is made in."""

    def __init__(self, address: str, access: Access) -> None:
        self._address = address
        self._channel, self._metadata = open_async_channel(address, access)

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close(None)

    async def call(self, call: Call[RequestT, ResponseT, ResultT], request: RequestT) -> ResultT:
        """One request, one response."""
        method: Any = self._channel.unary_unary(call.rpc, *_converters(call))
        try:
            response = await method(request, timeout=call.deadline_seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise await self._failure(error) from error
        return call.decode(response)

    def stream(
        self, call: Call[RequestT, ResponseT, ResultT], request: RequestT
    ) -> AsyncGenerator[ResultT, None]:
        """One request, many responses."""
        method = self._channel.unary_stream(call.rpc, *_converters(call))
        return self._responses(call, method, request)

    def exchange(
        self,
        call: Call[RequestT, ResponseT, ResultT],
        encode: Callable[[ItemT], RequestT],
        items: Iterable[ItemT] | AsyncIterable[ItemT],
    ) -> AsyncGenerator[ResultT, None]:
        """A request for each item, while responses are read."""

        async def requests() -> AsyncIterator[RequestT]:
            if isinstance(items, AsyncIterable):
                async for item in items:
                    yield encode(item)
            else:
                for item in items:
                    yield encode(item)

        method = self._channel.stream_stream(call.rpc, *_converters(call))
        return self._responses(call, method, requests())

    async def _responses(
        self, call: Call[RequestT, ResponseT, ResultT], method: Any, request: object
    ) -> AsyncGenerator[ResultT, None]:
        responses = method(request, timeout=call.deadline_seconds, metadata=self._metadata)
        try:
            async for response in responses:
                yield call.decode(response)
        except grpc.RpcError as error:
            raise await self._failure(error) from error
        finally:
            responses.cancel()  # if the caller stops reading; does nothing after the end

    async def _failure(self, error: grpc.RpcError) -> AgentError:
        connected = True
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            try:
                await asyncio.wait_for(self._channel.channel_ready(), CONNECT_SECONDS)
            except TimeoutError:
                connected = False
        return failure(error, self._address, lambda: connected)


def _converters(
    call: Call[RequestT, ResponseT, ResultT],
) -> tuple[Callable[[RequestT], bytes], Callable[[bytes], ResponseT]]:
    return call.request.SerializeToString, call.response.FromString


def failure(error: grpc.RpcError, address: str, is_connected: Callable[[], bool]) -> AgentError:
    """The error that a failed call raises.

    Args:
        error: gRPC's.
        address: of the server, for the message.
        is_connected: whether a server is there. Then the server itself answered UNAVAILABLE.
    """
    if error.code() == grpc.StatusCode.UNAVAILABLE and not is_connected():
        if "handshake" in (error.details() or "").lower():
            return HandshakeFailedError(
                f"{address} answers, but TLS with it fails ({error.details()}):"
                " check --tls-ca and that the certificate is for this host name, and"
                " --tls-cert if the server asks for one"
            )
        return ServerUnreachableError(
            f"no server answers at {address}: start one with 'agent serve',"
            " name another with --server HOST:PORT or AGENT_SERVER; if it speaks TLS, give --tls-ca"
            " and name it as its certificate does"
        )
    return RequestError(decode_error(error))
