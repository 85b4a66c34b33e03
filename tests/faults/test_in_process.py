"""A jumping clock, a poison fact, a stalled watcher."""

from __future__ import annotations

from pathlib import Path

from tests.faults import clock_set_back, in_process
from tests.faults.findings import new_seed


def test_a_jumping_clock_changes_neither_order_nor_pages(tmp_path: Path) -> None:
    in_process.run_clock(tmp_path, 3, new_seed()).require(3)


async def test_a_clock_set_back_loses_no_event_and_changes_no_weights(tmp_path: Path) -> None:
    """M6: for watchers whose connections break."""
    (await clock_set_back.run(tmp_path, 2, new_seed())).require(2)


async def test_a_poison_fact_is_quarantined_and_leaves_no_trace(tmp_path: Path) -> None:
    (await in_process.run_poison(tmp_path, 1, new_seed())).require(1)


async def test_a_stalled_watcher_holds_little_and_misses_nothing(tmp_path: Path) -> None:
    (await in_process.run_stalled(tmp_path, 1, new_seed())).require(1)
