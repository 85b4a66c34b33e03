"""Reads all held facts in pages, so that other readers get their turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from memory_store.store import MemoryStore
from memory_store.vocabulary import HELD, Fact
from memory_store.writer import StoreThreads

PAGE = 250


async def held_facts(store: StoreThreads) -> AsyncIterator[Fact]:
    """Yields the held facts in the order of acceptance; each page as it is when it is read."""
    position = 0
    while True:
        page = await store.read(
            partial(MemoryStore.facts, after_position=position, limit=PAGE, states=HELD)
        )
        for fact in page:
            yield fact
        if len(page) < PAGE:
            return
        position = page[-1].position
