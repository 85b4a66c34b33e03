"""The standard health service. No watcher can hold up another, a change of state, or the end.

The servicer of `grpc_health` sends to a watcher while it holds a lock that every change needs, so
one client that never reads freezes it. Here a change only sets the state and wakes the watchers.
Each then looks at the newest state by itself; what it could not be sent meanwhile is skipped.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from agent.service.peers import host_of

# Watchers need no token, so there is a limit to what they cost: in all, and of one host.
MAX_WATCHERS = 1_000
MAX_WATCHERS_OF_A_HOST = 250


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # untyped
    """Reports whether services serve; belongs to one event loop.

    Args:
        services: their full names; each starts as NOT_SERVING. The server as a whole is "".
        max_watchers: at a time; more are refused.
        max_of_a_host: watchers of one host at a time.
    """

    def __init__(
        self,
        services: Iterable[str],
        max_watchers: int = MAX_WATCHERS,
        max_of_a_host: int = MAX_WATCHERS_OF_A_HOST,
    ) -> None:
        self._status: dict[str, int] = dict.fromkeys(services, pb.HealthCheckResponse.NOT_SERVING)
        self._max_watchers = max_watchers
        self._max_of_a_host = max_of_a_host
        self._watchers: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._stopping = False

    def set_serving(self, service: str, serving: bool) -> None:
        """Notes a state and wakes the watchers; ignored once the server is stopping."""
        if not self._stopping:
            response = pb.HealthCheckResponse
            self._note(service, response.SERVING if serving else response.NOT_SERVING)

    def stop(self) -> None:
        """From now on nothing serves, whatever `set_serving` says."""
        self._stopping = True
        for service in self._status:
            self._note(service, pb.HealthCheckResponse.NOT_SERVING)

    def _note(self, service: str, status: int) -> None:
        if self._status.get(service) != status:
            self._status[service] = status
            # A new event each time: a watcher holds the one it took before it looked.
            self._changed.set()
            self._changed = asyncio.Event()

    async def Check(
        self, request: pb.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.HealthCheckResponse:
        """The state now."""
        status = self._status.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service here")
        return pb.HealthCheckResponse(status=status)

    async def List(
        self, request: pb.HealthListRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.HealthListResponse:
        """The state of every service now."""
        return pb.HealthListResponse(
            statuses={
                service: pb.HealthCheckResponse(status=status)
                for service, status in self._status.items()
            }
        )

    async def Watch(
        self, request: pb.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        """The state now and at each change, until the client leaves or the server stops."""
        unknown = pb.HealthCheckResponse.SERVICE_UNKNOWN
        with self._counted(host_of(context.peer())) as admitted:
            if not admitted:
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watchers: use Check"
                )
            sent = None
            while True:
                # Taken before the look, so that a change after it is not missed.
                changed = self._changed
                status = self._status.get(request.service, unknown)
                if status != sent:
                    yield pb.HealthCheckResponse(status=status)
                    sent = status
                await changed.wait()

    @contextmanager
    def _counted(self, host: str) -> Iterator[bool]:
        """Counts a watcher while it is here; False if there are as many as may be."""
        if self._watchers.total() >= self._max_watchers or (
            self._watchers[host] >= self._max_of_a_host
        ):
            yield False
            return
        self._watchers[host] += 1
        try:
            yield True
        finally:
            self._watchers[host] -= 1
            if not self._watchers[host]:
                del self._watchers[host]
