"""Fitting what the policy `predicted` expects, on what the ledger tells of earlier steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from agent.teaching.rate_prediction import RECENT_STEPS, predictor_of
from memory_store import ledger
from memory_store.store import MemoryStore
from memory_store.vocabulary import Step
from memory_store.writer import StoreThreads


class RatePredicting:
    """Fits a predictor at a tick if the head has moved since the last one.

    Only the lineage of the head counts, so that what is forgotten or rolled back has no say.

    Args:
        store: the memory.
        use: given the numbers of the predictor, or None of too few steps; and the head.
    """

    def __init__(
        self, store: StoreThreads, use: Callable[[tuple[float, ...] | None, int], None]
    ) -> None:
        self._store = store
        self._use = use
        self._fitted_at = 0  # the base checkpoint has no history

    async def tick(self) -> None:
        """Fits again if there are new rows."""
        head, history = await self._store.read(partial(_history_since, version=self._fitted_at))
        if head == self._fitted_at:
            return
        predictor = predictor_of(history)
        self._use(predictor.as_numbers() if predictor else None, head)
        self._fitted_at = head


def _history_since(store: MemoryStore, version: int) -> tuple[int, list[tuple[Step, ...]]]:
    """The head, and the steps of each of its last updates; none if it is still `version`."""
    head = store.model_version()
    # Each update that compared rates has a step that did.
    updates = ledger.recent(store.connection, head, RECENT_STEPS) if head != version else []
    return head, [update.steps for update in updates]
