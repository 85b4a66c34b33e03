"""The standard health service, in which no watcher can block another one or a change.

The servicer of `grpc_health` sends to watchers while it holds a lock that every change needs. One
client that never reads would block it. Here a change sets the state and wakes the watchers. Each
watcher then sends the newest state, and skips states that it had no time to send.
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

from agent.wire.peers import host_of

# Watchers need no token, so their number is limited, in total and for each host.
MAX_WATCHERS = 1_000
MAX_WATCHERS_OF_A_HOST = 250


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # untyped
    """Reports whether services serve; belongs to one event loop.

    Args:
        services: full names of the services, "" for the whole server. All start as NOT_SERVING.
        max_watchers: the most watchers at a time; more are refused.
        max_of_a_host: the most watchers of one host at a time.
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
        """Sets a state and wakes the watchers. Ignored once the server is stopping."""
        if not self._stopping:
            response = pb.HealthCheckResponse
            self._note(service, response.SERVING if serving else response.NOT_SERVING)

    def stop(self) -> None:
        """Sets every service to NOT_SERVING for good."""
        self._stopping = True
        for service in self._status:
            self._note(service, pb.HealthCheckResponse.NOT_SERVING)

    def _note(self, service: str, status: int) -> None:
        if self._status.get(service) != status:
            self._status[service] = status
            # Replaced each time: a watcher waits on the event that it took before it looked.
            self._changed.set()
            self._changed = asyncio.Event()

    async def Check(
        self, request: pb.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.HealthCheckResponse:
        """Returns the current state."""
        status = self._status.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service here")
        return pb.HealthCheckResponse(status=status)

    async def List(
        self, request: pb.HealthListRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.HealthListResponse:
        """Returns the current state of every service."""
        return pb.HealthListResponse(
            statuses={
                service: pb.HealthCheckResponse(status=status)
                for service, status in self._status.items()
            }
        )

    async def Watch(
        self, request: pb.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        """Sends the current state and each change, until the client leaves or the server stops."""
        unknown = pb.HealthCheckResponse.SERVICE_UNKNOWN
        with self._counted(host_of(context.peer())) as admitted:
            if not admitted:
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watchers: use Check"
                )
            sent = None
            while True:
                # Taken before the look, so that no later change is missed.
                changed = self._changed
                status = self._status.get(request.service, unknown)
                if status != sent:
                    yield pb.HealthCheckResponse(status=status)
                    sent = status
                await changed.wait()

    @contextmanager
    def _counted(self, host: str) -> Iterator[bool]:
        """Counts a watcher while it is connected. Yields False if there are too many."""
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
