"""Sets up the observability of a server: metrics, traces, and the observers that feed them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from agent.config import DATABASE, SNAPSHOTS, ServeSettings
from agent.server.api.call_observer import ObservingInterceptor
from agent.server.telemetry.gauges import from_thread, look
from agent.server.telemetry.metrics import Metrics, Standing
from agent.server.telemetry.metrics_server import exposed
from agent.server.telemetry.observer import Observer
from agent.server.telemetry.tracing import Tracing, tracing_to
from memory_store.vocabulary import Event
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Observers:
    """The observers that the parts of a server report to.

    Attributes:
        observer: receives what is learned.
        tracing: receives the spans.
        interceptors: for the server; none if nothing is observed.
        learner: returns whether it can be asked, and how many updates it still has to replay.
        clean_up_failures: returns how many attempts at cleaning up failed.
    """

    observer: Observer
    tracing: Tracing
    interceptors: Sequence[Any] = ()
    learner: Callable[[], tuple[bool, int]] = lambda: (False, 0)
    clean_up_failures: Callable[[], int] = lambda: 0

    def publishing(self, publish: Callable[[Event], None]) -> Callable[[Event], None]:
        """Passes events on, and reports the steps among them."""

        def noted(event: Event) -> None:
            if event.step is not None:
                self.observer.stepped(event.step)
            publish(event)

        return noted


@asynccontextmanager
async def observing(settings: ServeSettings, store: StoreThreads) -> AsyncIterator[Observers]:
    """Serves metrics and sends traces, as the settings say.

    Raises:
        ConfigError: the metrics' port is in use, or OpenTelemetry is not installed.
    """
    wanted = settings.observability
    tracing = tracing_to(wanted.trace_to)
    async with AsyncExitStack() as open_:
        open_.push_async_callback(asyncio.to_thread, tracing.close)
        if wanted.metrics_port is None:
            seen = Observers(Observer(store, None, tracing), tracing)
            if tracing.on:
                seen.interceptors = [ObservingInterceptor(lambda *_: None, tracing)]
            yield seen
            return

        async def stand() -> Standing:
            data = settings.data
            return await look(
                store,
                data / DATABASE,
                data / SNAPSHOTS,
                lambda: seen.learner(),
                clean_up_failures=lambda: seen.clean_up_failures(),
            )

        metrics = Metrics(from_thread(asyncio.get_running_loop(), stand))
        seen = Observers(
            Observer(store, metrics, tracing),
            tracing,
            [ObservingInterceptor(metrics.called, tracing)],
        )
        url = await open_.enter_async_context(
            exposed(metrics.registry, wanted.metrics_host, wanted.metrics_port)
        )
        logger.info("metrics at %s", url)
        yield seen
