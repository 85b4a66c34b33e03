"""Looks the gauges up on the server's loop, for a scrape in another thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.errors import SnapshotError
from agent.server.telemetry.metrics import Standing
from agent.snapshots import read_manifest, snapshot_folders
from memory_store import meta, operations
from memory_store.facts import count_by_state
from memory_store.vocabulary import FactState
from memory_store.writer import StoreThreads

# A scrape fails rather than wait longer for a loop that is stuck.
PATIENCE_SECONDS = 5.0


async def look(
    store: StoreThreads,
    database: Path,
    snapshots: Path,
    learner: Callable[[], tuple[bool, int]],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    clean_up_failures: Callable[[], int] = lambda: 0,
) -> Standing:
    """Returns the gauges as they are now.

    Args:
        store: the memory.
        database: its file.
        snapshots: folder of all snapshots.
        learner: returns whether it can be asked, and how many updates it still has to replay.
        now: the clock.
        clean_up_failures: returns how many attempts at cleaning up failed.
    """
    facts, oldest, version, paused, operation = await store.read(
        lambda store: (
            count_by_state(store.connection),
            store.facts(limit=1, states=(FactState.QUEUED, FactState.LEARNING)),
            store.model_version(),
            meta.learning_paused(store.connection),
            operations.oldest_open(store),
        )
    )
    ready, to_replay = learner()
    newest = _newest(snapshots)
    return Standing(
        facts=facts,
        queue_oldest_seconds=(
            max((now() - oldest[0].accepted_at).total_seconds(), 0.0) if oldest else 0.0
        ),
        model_version=version,
        learner_ready=ready,
        updates_to_replay=to_replay,
        learning_paused=paused,
        database_bytes=_size(database),
        wal_bytes=_size(database.with_name(f"{database.name}-wal")),
        snapshot_version=newest[0] if newest else None,
        # Clocks can be set back: an age is never negative.
        snapshot_age_seconds=max((now() - newest[1]).total_seconds(), 0.0) if newest else None,
        operation_done_facts=operation.done if operation else 0,
        operation_total_facts=operation.total if operation else 0,
        clean_up_failures=clean_up_failures(),
    )


def from_thread(
    loop: asyncio.AbstractEventLoop, look: Callable[[], Coroutine[Any, Any, Standing]]
) -> Callable[[], Standing]:
    """Returns a function for other threads that runs `look` on a loop."""
    return lambda: asyncio.run_coroutine_threadsafe(look(), loop).result(PATIENCE_SECONDS)


def _newest(snapshots: Path) -> tuple[int, datetime] | None:
    """Version and time of the newest snapshot that can be read."""
    for version, folder in snapshot_folders(snapshots):
        try:
            return version, datetime.fromisoformat(read_manifest(folder).created_at)
        except SnapshotError:
            continue
    return None


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
