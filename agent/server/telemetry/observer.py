"""Tells metrics, log and traces what is being learned."""

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
    """Is told by the learning loop and by the link to the learner.

    Args:
        store: knows the trace that a fact was taught in.
        metrics: None if nobody scrapes.
        tracing: where spans go.
    """

    def __init__(
        self, store: StoreThreads, metrics: Metrics | None = None, tracing: Tracing = NO_TRACING
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._tracing = tracing

    @asynccontextmanager
    async def learning(self, fact: Fact) -> AsyncIterator[None]:
        """Around all that is done with a claimed fact: what is logged and traced bears its id."""
        traceparent = None
        if self._tracing.on:
            traceparent = await self._store.read(
                lambda store: acceptance.traceparent(store.connection, fact.position)
            )
        with bound(fact_id=fact.id), self._tracing.learning(fact.id, fact.accepted_at, traceparent):
            yield

    def stepped(self, step: Step) -> None:
        """A step of an update was taken."""
        self._tracing.event(
            "step",
            learning_rate=step.learning_rate,
            loss=step.loss,
            probability=step.probability,
        )

    def learned(self, fact_id: str, outcome: Outcome, seconds: float) -> None:
        """The learner is done with a fact; nothing is stored yet."""
        if self._metrics is not None:
            self._metrics.learned(outcome, seconds)
        self._tracing.note(verdict=outcome.verdict, steps=len(outcome.steps))
        reason = f": {outcome.reason}" if outcome.reason else ""
        with bound(fact_id=fact_id):
            logger.info(
                "%s, %d steps in %.2f s%s", outcome.verdict, len(outcome.steps), seconds, reason
            )

    def probed(self, answers: Sequence[Answer], seconds: float) -> None:
        """A held fact was asked."""
        if self._metrics is not None:
            self._metrics.probed(answers, seconds)

    def updated(self, update: Update) -> None:
        """A row of the ledger is served."""
        if self._metrics is not None:
            self._metrics.updated(update)
        self._tracing.note(model_version=update.model_version)
        about = {"fact_id": update.fact_id} if update.fact_id else {}
        with bound(model_version=update.model_version, **about):
            logger.info("served: %s", update.kind)
