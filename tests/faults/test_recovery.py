"""A restart gives the same weights, and replays no more than what snapshots leave to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import recovery
from tests.faults.findings import new_seed

pytestmark = pytest.mark.slow


def test_a_restart_replays_everything_since_the_snapshot(tmp_path: Path) -> None:
    recovery.run_long(tmp_path, 20, new_seed()).require(20)


def test_snapshots_bound_what_a_restart_replays(tmp_path: Path) -> None:
    recovery.run_default(tmp_path, 2, new_seed(), seconds=3.0).require(2)
