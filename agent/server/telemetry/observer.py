"""Reports what is learned to metrics, log and traces."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from agent.server.telemetry.logs import bound
from agent.server.telemetry.metrics import Metrics
from agent.server.telemetry.tracing import NO_TRACING, Tracing
from agent.teaching.types import Answer, Outcome
from memory_store import acceptance
from memory_store.vocabulary import Fact, Step, Update
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)


class Observer:
    """Called by the learning loop and by the link to the learner.

    Args:
        store: has the trace that a fact was taught in.
        metrics: None if none are served.
        tracing: receives the spans.
    """

    def __init__(
        self, store: StoreThreads, metrics: Metrics | None = None, tracing: Tracing = NO_TRACING
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._tracing = tracing

    @asynccontextmanager
    async def learning(self, fact: Fact) -> AsyncIterator[None]:
        """Adds a claimed fact's id to what is logged and traced inside the block."""
        traceparent = None
        if self._tracing.on:
            traceparent = await self._store.read(
                lambda store: acceptance.traceparent(store.connection, fact.position)
            )
        with bound(fact_id=fact.id), self._tracing.learning(fact.id, fact.accepted_at, traceparent):
            yield

    def stepped(self, step: Step) -> None:
        """Reports a step of an update."""
        self._tracing.event(
            "step", learning_rate=step.learning_rate, loss=step.loss, probability=step.probability
        )

    def learned(self, fact_id: str, outcome: Outcome, seconds: float) -> None:
        """Reports an attempt that has ended; nothing is stored yet."""
        if self._metrics is not None:
            self._metrics.learned(outcome, seconds)
        self._tracing.note(verdict=outcome.verdict, steps=len(outcome.steps))
        reason = f": {outcome.reason}" if outcome.reason else ""
        with bound(fact_id=fact_id):
            logger.info(
                "%s, %d steps in %.2f s%s", outcome.verdict, len(outcome.steps), seconds, reason
            )

    def probed(self, answers: Sequence[Answer], seconds: float) -> None:
        """Reports a probe of a held fact."""
        if self._metrics is not None:
            self._metrics.probed(answers, seconds)

    def updated(self, update: Update) -> None:
        """Reports a row of the ledger that is served."""
        if self._metrics is not None:
            self._metrics.updated(update)
        self._tracing.note(model_version=update.model_version)
        about = {"fact_id": update.fact_id} if update.fact_id else {}
        with bound(model_version=update.model_version, **about):
            logger.info("served: %s", update.kind)
