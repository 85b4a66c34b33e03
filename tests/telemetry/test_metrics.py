"""Metrics: what is counted, what is looked up at a scrape, and how they are served."""

from __future__ import annotations

import asyncio
import math
import socket
import urllib.request
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.server.telemetry.gauges import from_thread, look
from agent.server.telemetry.metrics import Metrics
from agent.server.telemetry.metrics_server import exposed
from agent.snapshots import folder_of
from memory_store import meta
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState
from memory_store.writer import StoreThreads
from tests.server.serving import made_snapshot
from tests.store.builders import new_fact
from tests.telemetry.outcomes import RIGHT, WRONG, outcome, standing


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_fact_is_counted_by_its_verdict_with_its_rates_and_what_the_gate_measured():
    metrics = Metrics(standing)
    metrics.learned(outcome(forgetting=(RIGHT, RIGHT, WRONG), leak=0.02, drift=0.004), 1.5)
    metrics.learned(outcome("resisted", leak=0.6), 4.0)
    metrics.learned(outcome("known", steps=()), 0.1)
    for verdict, seconds in (("learned", 1.5), ("resisted", 4.0), ("known", 0.1)):
        assert value(metrics, "continual_update_seconds_count", verdict=verdict) == 1
        assert value(metrics, "continual_update_seconds_sum", verdict=verdict) == seconds
    assert value(metrics, "continual_learning_rate_count") == 2
    assert value(metrics, "continual_learning_rate_bucket", le="0.001") == 2
    assert value(metrics, "continual_leak_probability_sum") == pytest.approx(0.62)
    assert value(metrics, "continual_text_divergence_nats_count") == 1
    for result, count in (("right", 2), ("wrong", 1)):
        found = value(metrics, "continual_probes_total", kind="forgetting", result=result)
        assert found == count


def test_retention_is_that_of_the_facts_asked_last():
    metrics = Metrics(standing)
    assert math.isnan(value(metrics, "continual_retention_ratio") or 0.0)
    metrics.probed([WRONG, RIGHT], 0.2)
    assert value(metrics, "continual_retention_ratio") == 0
    for _ in range(3):
        metrics.probed([RIGHT], 0.2)
    assert value(metrics, "continual_retention_ratio") == 0.75
    for _ in range(97):
        metrics.probed([RIGHT], 0.2)
    assert value(metrics, "continual_retention_ratio") == 1
    assert value(metrics, "continual_probe_seconds_count") == 101
    assert value(metrics, "continual_probes_total", kind="transfer", result="right") == 1


async def test_how_things_stand_is_looked_up(tmp_path: Path) -> None:
    database, snapshots = tmp_path / "memory.db", tmp_path / "snapshots"
    store = await StoreThreads.open(database)
    first = await store.write(lambda store: store.teach(new_fact("Sky?")))
    await store.write(lambda store: store.teach(new_fact("Gem?")))
    await store.write(MemoryStore.claim)  # the first is being learned: it waits still
    later = first.fact.accepted_at + timedelta(seconds=90)

    found = await look(store, database, snapshots, lambda: (False, 7), lambda: later)
    assert (found.facts[FactState.QUEUED], found.facts[FactState.LEARNING]) == (1, 1)
    assert found.queue_oldest_seconds == 90
    assert (found.learner_ready, found.updates_to_replay) == (False, 7)
    assert (found.snapshot_version, found.snapshot_age_seconds) == (None, None)
    assert found.wal_bytes == (tmp_path / "memory.db-wal").stat().st_size > 0

    made_snapshot(snapshots, 4)
    made_snapshot(snapshots, 12)
    for file in folder_of(snapshots, 12).iterdir():  # the newest cannot be read
        file.unlink()
    assert not found.learning_paused
    await store.write(lambda store: meta.pause_learning(store.connection, paused=True))
    found = await look(store, database, snapshots, lambda: (True, 0))
    assert found.learning_paused
    assert found.snapshot_version == 4
    assert 0 <= (found.snapshot_age_seconds or -1) < 3600
    await store.close()


async def test_metrics_are_served_and_looked_up_on_the_loop() -> None:
    asked: list[asyncio.AbstractEventLoop] = []

    async def stand():
        asked.append(asyncio.get_running_loop())
        return standing(queue_oldest_seconds=12.5, snapshot_version=None)

    loop = asyncio.get_running_loop()
    metrics = Metrics(from_thread(loop, stand))
    metrics.called("MemoryService/Teach", "OK", 0.003)
    assert asked == []
    async with exposed(metrics.registry, "127.0.0.1", 0) as url:
        text = (await asyncio.to_thread(partial(urllib.request.urlopen, url))).read().decode()
    assert asked == [loop]
    assert "continual_queue_oldest_seconds 12.5" in text
    assert 'continual_rpc_seconds_count{code="OK",method="MemoryService/Teach"} 1.0' in text
    assert "continual_snapshot_version" not in text


async def test_a_scraper_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """H2: each of them kept a thread for as long as it liked."""
    monkeypatch.setattr("agent.server.telemetry.metrics_server.SILENT_SECONDS", 0.1)
    async with exposed(Metrics(standing).registry, "127.0.0.1", 0) as url:
        host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
        silent = socket.create_connection((host, int(port)), timeout=30)
        assert await asyncio.to_thread(silent.recv, 1) == b""
        silent.close()


async def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} .*--metrics-port"):
            async with exposed(Metrics(standing).registry, "127.0.0.1", port):
                pass
