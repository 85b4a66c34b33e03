"""The power goes at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import power_loss, tracing
from tests.faults.findings import new_seed

pytestmark = pytest.mark.skipif(bool(tracing.why_not()), reason=tracing.why_not() or "it works")


def test_what_was_acknowledged_survives_power_loss(tmp_path: Path) -> None:
    power_loss.run(tmp_path, 40, new_seed()).require(40)


def test_the_images_would_show_a_loss(tmp_path: Path) -> None:
    """The negative control: without a sync at each commit, acknowledged facts do get lost."""
    found = power_loss.run(tmp_path, 40, new_seed(), synchronous="NORMAL")
    assert found.lost > 0
    assert found.diverged == 0, found  # lost, but never inconsistent


@pytest.mark.slow
def test_slow_syncs_lose_nothing(tmp_path: Path) -> None:
    power_loss.run(tmp_path, 20, new_seed(), slow=True).require(20)
