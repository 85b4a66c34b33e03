"""A jumping clock, a poison fact, a stalled watcher."""

from __future__ import annotations

from pathlib import Path

from tests.faults import in_process
from tests.faults.findings import new_seed


def test_a_jumping_clock_changes_neither_order_nor_pages(tmp_path: Path) -> None:
    in_process.run_clock(tmp_path, 3, new_seed()).require(3)


async def test_a_poison_fact_is_quarantined_and_leaves_no_trace(tmp_path: Path) -> None:
    (await in_process.run_poison(tmp_path, 1, new_seed())).require(1)


async def test_a_stalled_watcher_holds_little_and_misses_nothing(tmp_path: Path) -> None:
    (await in_process.run_stalled(tmp_path, 1, new_seed())).require(1)
