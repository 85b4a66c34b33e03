"""What an operation repeats: attempts are counted, so that one fact cannot hold it up."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from agent.errors import LearningFailedError
from agent.server.loop.serving import Hooks, Serving
from agent.server.loop.undo.branch_builder import BranchBuilder
from agent.server.loop.undo.turns import Turns
from memory_store.attempts import begin_attempt
from memory_store.companion_sampling import HeldFacts
from memory_store.store import CRASHED
from memory_store.vocabulary import Guards, Operation, Policy
from tests.loop.conftest import World

PLAIN = Policy(name="search", learning_rate=1e-4, max_steps=24)
OWN = replace(PLAIN, guards=Guards(controls=3))


def builder_of(world: World, operation_id: int = 1) -> BranchBuilder:
    """A new server's; of no learner."""
    settings = replace(world.settings, policy=PLAIN, max_attempts=3)
    nobody: Any = None
    return BranchBuilder(
        serving=Serving(world.store, settings, Hooks()),
        operation=cast("Operation", SimpleNamespace(id=operation_id)),
        learner=nobody,
        failures=defaultdict(list),
        turns=Turns(),
        held_facts=HeldFacts(),
        version=0,
    )


async def test_a_fact_that_takes_the_server_with_it_on_a_branch_is_given_up(world: World) -> None:
    """M3: the operation is resumed at each start, and would end the server each time."""
    what = ("fact", 7)
    for _ in range(3):  # and each time the server ends
        await world.store.write(partial(begin_attempt, operation_id=1, what=what))
    builder = builder_of(world)

    async def attempt() -> str:
        return "learned"

    assert await builder._tried(what, attempt) is None
    assert builder.failures[what] == [CRASHED] * 3
    assert await builder._tried(("fact", 8), attempt) == "learned"
    # Of another operation nothing is known.
    await world.store.write(partial(begin_attempt, operation_id=1, what=what))
    assert await builder_of(world, 2)._tried(what, attempt) == "learned"


async def test_failures_and_crashes_count_together_and_a_clean_stop_does_not(world: World) -> None:
    """M3."""
    what, begun = ("fact", 7), asyncio.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    for _ in range(4):
        stopped = asyncio.create_task(builder_of(world)._tried(what, endless))
        await begun.wait()
        begun.clear()
        stopped.cancel()
        await asyncio.wait([stopped])
    await world.store.write(partial(begin_attempt, operation_id=1, what=what))
    builder = builder_of(world)
    tried = 0

    async def fails() -> str:
        nonlocal tried
        tried += 1
        raise LearningFailedError("NaN")

    assert await builder._tried(what, fails) is None
    assert (tried, builder.failures[what]) == (2, [CRASHED, "NaN", "NaN"])
