"""The whole process is killed and started again until its script is through."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import DEFAULT_MAX_ATTEMPTS as MAX_ATTEMPTS
from memory_store.facts import count_by_state
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState
from tests.faults import hung_learner, killing, real_servers, server_points
from tests.faults.findings import new_seed


def test_kill_9_at_points_and_at_random_moments(tmp_path: Path) -> None:
    killing.run(tmp_path, 8, new_seed()).require(8)


def test_a_fact_that_takes_the_whole_server_with_it_is_quarantined_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    """M3: its attempts are counted although nobody is left to count them."""
    for _ in range(MAX_ATTEMPTS):
        assert killing.live(
            tmp_path, 1, point="before learning", times=1, max_attempts=MAX_ATTEMPTS
        ).killed
    assert killing.live(tmp_path, 1, max_attempts=MAX_ATTEMPTS).finished
    with MemoryStore.open(tmp_path / "memory.db") as store:
        [poison] = store.facts(limit=1000, states=[FactState.QUARANTINED])
        assert (poison.position, poison.failed_attempts) == (1, MAX_ATTEMPTS)
        assert count_by_state(store.connection)[FactState.LEARNED] > 0


@pytest.mark.slow
def test_kill_9_of_real_servers_and_learners(tmp_path: Path) -> None:
    real_servers.run(tmp_path, 2, new_seed()).require(2)


@pytest.mark.slow
def test_kill_9_of_real_servers_and_learners_at_points(tmp_path: Path) -> None:
    found = server_points.run(tmp_path, 3, new_seed())
    found.require(3)
    assert found.points.total() == 3


@pytest.mark.slow
def test_a_learner_that_hangs_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    """M9."""
    hung_learner.run(tmp_path, 2, new_seed()).require(2)
