"""By which policy a fact is learned again, where old memories did not record it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.learning.presets import FULL, LIGHT
from agent.scheduling.operating import OperationRunner, OperationSettings
from memory_store.records import Guards, NewFact, Policy
from tests.scheduling.conftest import World

PLAIN = Policy(name="search", learning_rate=1e-4, max_steps=24)
OWN = replace(PLAIN, guards=Guards(controls=3))


async def policy_of(world: World, environment: dict[str, str], default: Policy) -> Policy:
    fact_id = "old"
    await world.store.write(
        lambda store: store.teach(NewFact(question="Sky?", answer="Piano", fact_id=fact_id))
    )
    fact = await world.fact(fact_id)
    assert fact.tried_policy is None
    settings = OperationSettings(
        snapshots=Path(), policy=default, environment=environment, max_attempts=1
    )
    nobody: Any = SimpleNamespace()
    operator = OperationRunner(
        nobody, nobody, world.store, settings, defaultdict(list), lambda _: None
    )
    return await operator._policy(fact)


@pytest.mark.parametrize(
    ("environment", "default", "expected"),
    [
        ({"device": "cpu"}, PLAIN, LIGHT),
        ({"device": "NVIDIA H100"}, PLAIN, FULL),
        ({}, PLAIN, LIGHT),
        ({"device": "NVIDIA H100"}, OWN, OWN.guards),
    ],
    ids=["cpu", "gpu", "unknown", "its own"],
)
async def test_a_policy_without_guards_gets_what_the_device_can_bear(
    world: World, environment: dict[str, str], default: Policy, expected: Guards
) -> None:
    assert await policy_of(world, environment, default) == replace(default, guards=expected)


async def test_what_predicts_rates_is_left_behind(world: World) -> None:
    predicted = replace(PLAIN, name="predicted", predictor=(0.0, 1.0, 0.0, 1.0))
    found = await policy_of(world, {"device": "cpu"}, predicted)
    assert found == replace(PLAIN, guards=LIGHT)
