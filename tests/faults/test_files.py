"""Damaged files: the write-ahead log, and snapshots."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import restored, snapshots, torn_wal
from tests.faults.findings import new_seed


def test_a_torn_or_flipped_log_gives_a_prefix_or_a_refusal(tmp_path: Path) -> None:
    torn_wal.run(tmp_path, 60, new_seed()).require(60)


@pytest.mark.slow
async def test_damaged_snapshots_lead_to_the_same_weights(tmp_path: Path) -> None:
    (await snapshots.run(tmp_path, 5, new_seed())).require(5)


async def test_an_old_database_beside_newer_snapshots_learns_and_snapshots_on(
    tmp_path: Path,
) -> None:
    """Low: snapshots newer than a restored ledger."""
    (await restored.run(tmp_path, 2, new_seed())).require(2)
