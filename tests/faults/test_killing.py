"""The whole process is killed and started again until its script is through."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import killing, real_servers, server_points
from tests.faults.findings import new_seed


def test_kill_9_at_points_and_at_random_moments(tmp_path: Path) -> None:
    killing.run(tmp_path, 8, new_seed()).require(8)


@pytest.mark.slow
def test_kill_9_of_real_servers_and_learners(tmp_path: Path) -> None:
    real_servers.run(tmp_path, 2, new_seed()).require(2)


@pytest.mark.slow
def test_kill_9_of_real_servers_and_learners_at_points(tmp_path: Path) -> None:
    found = server_points.run(tmp_path, 3, new_seed())
    found.require(3)
    assert found.points.total() == 3
