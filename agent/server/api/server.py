"""The gRPC server: servicers, health, reflection and limits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from agent.addresses import UNIX, UNIX_ABSTRACT
from agent.config import Security
from agent.server.access.interceptor import AccessInterceptor
from agent.server.access.rate_limit import RateLimiter
from agent.server.access.tokens import KnownTokens, TokenFile
from agent.server.access.transport import (
    address_in_use,
    private_socket,
    require_safe_listen,
    server_credentials,
    server_options,
)
from agent.server.api.admin_servicer import AdminServicer
from agent.server.api.health import HealthServicer
from agent.server.api.memory_servicer import MemoryServicer
from agent.server.api.model_servicer import ModelServicer
from agent.wire.status import StatusInterceptor
from continual.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)

MEMORY_SERVICE = memory_pb2.DESCRIPTOR.services_by_name["MemoryService"].full_name
MODEL_SERVICE = model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
ADMIN_SERVICE = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
OUR_SERVICES = (MEMORY_SERVICE, MODEL_SERVICE, ADMIN_SERVICE)
FLUSH_SECONDS = 0.5
# The limit for gRPC to close its connections after that. It usually takes milliseconds.
CLOSE_SECONDS = 4.0
LOCAL = Security()

logger = logging.getLogger(__name__)


class _Refusing(grpc.GenericRpcHandler):  # type: ignore[type-arg] # in stubs
    """Answers every call of our services with the same error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns a handler that fits any kind of call, because it reads no request."""
        if not handler_call_details.method.startswith(tuple(f"/{name}/" for name in OUR_SERVICES)):
            return None
        return grpc.stream_stream_rpc_method_handler(self._refuse, request_deserializer=bytes)

    async def _refuse(self, requests: object, context: object) -> AsyncIterator[bytes]:
        raise self._error
        yield b""  # makes this a generator


class HealthServer:
    """A server with health (NOT_SERVING) and reflection only.

    Belongs to the asyncio loop that made it.

    Args:
        listen: HOST:PORT or unix:PATH.
        security: TLS, tokens and rate limits.
        interceptors: interceptors that run before the server's own.
        refusal: the error for every call of our services; None if they are unknown or added.

    Attributes:
        address: the HOST:PORT or unix:PATH that it listens on, once started.

    Raises:
        ConfigError: the address is reachable by others without protection, or a file named in
            `security` cannot be used.
    """

    def __init__(
        self,
        listen: str,
        security: Security = LOCAL,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),  # type: ignore[type-arg] # in stubs
        refusal: Exception | None = None,
    ) -> None:
        require_safe_listen(listen, security)
        self._listen = listen
        self._security = security
        self.address = listen
        self._credentials = server_credentials(security)
        self._access = AccessInterceptor(
            KnownTokens(TokenFile(security.tokens)) if security.tokens else None,
            RateLimiter(security.rate_limit) if security.rate_limit else None,
        )
        self._calls = StatusInterceptor()
        self._checking: asyncio.Task[None] | None = None
        self._server = grpc.aio.server(
            interceptors=[*interceptors, self._access, self._calls], options=server_options()
        )
        if refusal is not None:
            self._server.add_generic_rpc_handlers((_Refusing(refusal),))
        self._health = HealthServicer(("", *OUR_SERVICES))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*OUR_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self) -> None:
        """Binds and serves. Health is NOT_SERVING until `set_serving` changes it.

        Raises:
            ConfigError: the address is in use or cannot be bound.
        """
        try:
            with private_socket(self._listen, self._security):
                if self._credentials is None:
                    port = self._server.add_insecure_port(self._listen)
                else:
                    port = self._server.add_secure_port(self._listen, self._credentials)
        except RuntimeError as error:
            raise address_in_use(self._listen) from error
        if not self._listen.startswith((UNIX, UNIX_ABSTRACT)):  # a socket has no port
            self.address = f"{self._listen.rpartition(':')[0]}:{port}"
        await self._server.start()
        self._checking = asyncio.create_task(self._access.streams.keep_checking())

    def set_serving(self, service: str, serving: bool) -> None:
        """Changes the health of a service, for `Check` and for watchers."""
        self._health.set_serving(service, serving)

    async def stop(self, grace_seconds: float) -> None:
        """Refuses new work, waits up to `grace_seconds` for running calls, and stops.

        Stopping takes at most `FLUSH_SECONDS` + `CLOSE_SECONDS` more, whatever clients do.
        """
        if self._checking is not None:
            self._checking.cancel()
        self._health.stop()
        self._calls.refuse_work()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._calls.idle.wait(), grace_seconds)
        # Time to send the last responses. Watchers of health never end by themselves.
        try:
            await asyncio.wait_for(self._server.stop(FLUSH_SECONDS), FLUSH_SECONDS + CLOSE_SECONDS)
        except TimeoutError:
            logger.warning("some connections do not end: they end with the process")


class Server(HealthServer):
    """The public server."""

    def __init__(
        self,
        listen: str,
        memory: MemoryServicer,
        model: ModelServicer,
        admin: AdminServicer,
        security: Security = LOCAL,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),  # type: ignore[type-arg] # in stubs
    ) -> None:
        super().__init__(listen, security, interceptors)
        memory_pb2_grpc.add_MemoryServiceServicer_to_server(memory, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(model, self._server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, self._server)
