"""Serves metrics over HTTP, for Prometheus to scrape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from prometheus_client import CollectorRegistry, start_http_server

from agent.errors import ConfigError

SILENT_SECONDS = 10.0


@asynccontextmanager
async def exposed(registry: CollectorRegistry, host: str, port: int) -> AsyncIterator[str]:
    """Serves a registry in a thread; yields the URL.

    Raises:
        ConfigError: the port is in use, or the host is not one of this machine's.
    """
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(
            f"cannot serve metrics on {host}:{port} ({error.strerror}): choose another port with"
            " --metrics-port"
        ) from error
    # Otherwise a scraper that connects and sends nothing would keep a thread forever.
    handler = cast(Any, server.RequestHandlerClass)
    server.RequestHandlerClass = type("Patient", (handler,), {"timeout": SILENT_SECONDS})
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        # In a thread: a scrape that is running may wait for this loop.
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)
