"""Thinning in the background (M15): pieces, with everybody else's writes between them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.server.loop import thinner as thinning_module
from agent.server.loop.thinner import Thinner
from memory_store import erasure
from memory_store.errors import StoreUnusableError
from memory_store.history_thinning import Removed, Thinning
from memory_store.probes import of_fact as probes_of
from memory_store.store import MemoryStore
from memory_store.writer import StoreThreads
from tests.store.builders import new_fact, new_probe, teach_learned


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StoreThreads]:
    monkeypatch.setattr(thinning_module, "PAUSE_SECONDS", 0.0)
    threads = await StoreThreads.open(tmp_path / "memory.db")
    await threads.write(many_probes)
    yield threads
    await threads.close()


def many_probes(store: MemoryStore) -> None:
    for number in range(3):
        fact = teach_learned(store, f"question {number}")
        store.record_probes([new_probe(fact.id)] * 900, 1)


async def test_a_tick_thins_to_the_end_and_then_there_is_nothing(store: StoreThreads) -> None:
    thinner = Thinner(store, 1000)
    await thinner.tick()
    left = await store.read(
        lambda store: [len(probes_of(store.connection, f.id)) for f in store.facts()]
    )
    assert left == [2, 2, 2]
    assert (await thinner.compact()).removed_probes == 0


async def test_others_write_between_two_pieces(
    store: StoreThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fact that is taught while a piece runs is stored before the next one."""
    loop, piece = asyncio.get_running_loop(), Thinning.piece
    seen: list[int] = []

    def counted(self: Thinning, opened: MemoryStore) -> Removed | None:
        seen.append(len(opened.facts()))
        loop.call_soon_threadsafe(store.teach, [new_fact(f"meanwhile {len(seen)}")])
        return piece(self, opened)

    monkeypatch.setattr(Thinning, "piece", counted)
    await Thinner(store, 1000).compact()
    assert len(seen) > 3
    assert seen == list(range(3, 3 + len(seen)))


async def test_a_full_disk_is_no_end_of_the_ticks(
    store: StoreThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Thinning, opened: MemoryStore) -> Removed | None:
        raise StoreUnusableError("no space is left")

    thinner = Thinner(store, 1000)
    with monkeypatch.context() as patched:
        patched.setattr(Thinning, "piece", full)
        await thinner.tick()
    await thinner.tick()
    assert (
        len(await store.read(lambda store: probes_of(store.connection, store.facts()[0].id))) == 2
    )


async def test_it_logs_once_that_it_waits_for_an_erased_text(
    store: StoreThreads, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await store.write(lambda store: erasure.erase(store, store.facts()[0]))
    thinner = Thinner(store, 1000)
    await thinner.tick()
    await thinner.tick()
    assert caplog.text.count("thinning waits") == 1
    await store.write(lambda store: erasure.close(store, erasure.pending(store)[0]))
    caplog.clear()
    await thinner.tick()
    assert "thinned: removed" in caplog.text
    assert "waits" not in caplog.text


async def test_a_tick_ends_with_the_server(store: StoreThreads) -> None:
    await store.close()
    await Thinner(store, 1000).tick()
