"""By which policy a fact is learned again, where old memories did not record it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.errors import LearningFailedError
from agent.learning.presets import FULL, LIGHT
from agent.scheduling.operating import OperationRunner, OperationSettings
from memory_store.attempts import begin_attempt
from memory_store.store import CRASHED
from memory_store.vocabulary import Guards, NewFact, Policy
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


def operator_of(world: World, operation_id: int = 1) -> OperationRunner:
    """A new server's; of no learner."""
    settings = OperationSettings(snapshots=Path(), policy=PLAIN, environment={}, max_attempts=3)
    nobody: Any = SimpleNamespace(id=operation_id)
    return OperationRunner(nobody, nobody, world.store, settings, defaultdict(list), lambda _: None)


async def test_a_fact_that_takes_the_server_with_it_on_a_branch_is_given_up(world: World) -> None:
    """M3: the operation is resumed at each start, and would end the server each time."""
    what = ("fact", 7)
    for _ in range(3):  # and each time the server ends
        await world.store.write(partial(begin_attempt, operation_id=1, what=what))
    operator = operator_of(world)

    async def attempt() -> str:
        return "learned"

    assert await operator._tried(what, attempt) is None
    assert operator._failures[what] == [CRASHED] * 3
    assert await operator._tried(("fact", 8), attempt) == "learned"
    # Of another operation nothing is known.
    await world.store.write(partial(begin_attempt, operation_id=1, what=what))
    assert await operator_of(world, 2)._tried(what, attempt) == "learned"


async def test_failures_and_crashes_count_together_and_a_clean_stop_does_not(world: World) -> None:
    """M3."""
    what, begun = ("fact", 7), asyncio.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    for _ in range(4):
        stopped = asyncio.create_task(operator_of(world)._tried(what, endless))
        await begun.wait()
        begun.clear()
        stopped.cancel()
        await asyncio.wait([stopped])
    await world.store.write(partial(begin_attempt, operation_id=1, what=what))
    operator = operator_of(world)
    tried = 0

    async def fails() -> str:
        nonlocal tried
        tried += 1
        raise LearningFailedError("NaN")

    assert await operator._tried(what, fails) is None
    assert (tried, operator._failures[what]) == (2, [CRASHED, "NaN", "NaN"])
