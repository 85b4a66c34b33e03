"""Forgetting comes to an end however much is taught meanwhile (H5)."""

from __future__ import annotations

import asyncio

import pytest

from agent.server.loop.undo.turns import Turns


@pytest.mark.parametrize("first", [0, 1, 7, 100])
async def test_the_branch_catches_up_with_a_head_that_never_rests(first: int) -> None:
    """H5: at most 2R + 2 facts are repeated for R that follow the forgotten one."""
    turns, left, repeated = Turns(), first, 0

    async def head() -> None:
        nonlocal left
        while True:
            async with turns.turn() as processed:
                processed.append("a fact")
                left += 1

    learning = asyncio.create_task(head())
    await asyncio.sleep(0)
    while left:
        left -= 1
        repeated += 1
        turns.repeated()
        await turns.announce()
        for _ in range(10):  # the head is as fast as it may be
            await asyncio.sleep(0)
        assert repeated <= 2 * first + 2
    await turns.stop()
    assert left == 0
    learning.cancel()
    await asyncio.wait([learning])


async def test_stopping_waits_for_what_the_head_is_at() -> None:
    turns, may_end, order = Turns(), asyncio.Event(), list[str]()

    async def head() -> None:
        async with turns.turn() as processed:
            await may_end.wait()
            processed.append("a fact")
            order.append("learned")

    learning = asyncio.create_task(head())
    await asyncio.sleep(0)
    stopping = asyncio.create_task(turns.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    may_end.set()
    await stopping
    assert order == ["learned"]
    await learning


async def test_a_shortage_of_memory_takes_the_turns_of_the_head() -> None:
    """H6: two learners at once may be too much for the memory."""
    turns = Turns()
    assert await turns.wait_for_head()
    assert not await turns.wait_for_head()
