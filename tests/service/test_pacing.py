"""Turns for many: in order, a few at a time, and never held by who got one."""

from __future__ import annotations

import asyncio

from agent.service.pacing import BURST, Pacer


async def test_turns_are_given_in_order_a_few_at_a_time() -> None:
    """M7: between two bursts the loop does something else."""
    pacer, order = Pacer(), list[int]()

    async def take(number: int) -> None:
        await pacer.turn()
        order.append(number)

    tasks = [asyncio.create_task(take(number)) for number in range(5 * BURST)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == list(range(BURST))
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)
    assert order == list(range(5 * BURST))


async def test_who_leaves_takes_no_turn_and_closing_lets_all_go() -> None:
    """M7: a watcher that is gone, and the end of the server."""
    pacer = Pacer()
    for _ in range(BURST):
        await pacer.turn()
    waiting = [asyncio.create_task(pacer.turn()) for _ in range(3 * BURST)]
    await asyncio.sleep(0)
    for task in waiting[:BURST]:
        task.cancel()
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting[BURST : 2 * BURST])
        pacer.close()
        await asyncio.gather(*waiting, return_exceptions=True)
        await pacer.turn()
    assert all(task.cancelled() for task in waiting[:BURST])
