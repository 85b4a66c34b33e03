"""The lock that questions share, and that a fact or a question may hold alone (H6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from agent.server.shared_lock import SharedLock


class Holder:
    """Somebody who takes the lock, and leaves it when released."""

    def __init__(self, take: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        self.holds, self.leave = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self._hold(take))

    async def _hold(self, take: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        async with take():
            self.holds.set()
            await self.leave.wait()

    async def release(self) -> None:
        self.leave.set()
        await self.task


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_many_share_and_one_is_alone() -> None:
    lock = SharedLock()
    first, second = Holder(lock.shared), Holder(lock.shared)
    await asyncio.gather(first.holds.wait(), second.holds.wait())
    assert (lock.holders, lock.entries) == (2, 2)
    alone = Holder(lock.exclusive)
    await settled()
    late = Holder(lock.shared)  # it came after the one who wants to be alone
    await first.release()
    await settled()
    assert not alone.holds.is_set()
    await second.release()
    await alone.holds.wait()
    assert lock.holders == 1
    await settled()
    assert not late.holds.is_set()
    await alone.release()
    await late.holds.wait()
    await late.release()
    assert (lock.holders, lock.entries) == (0, 4)


async def test_two_are_never_alone_together() -> None:
    lock = SharedLock()
    first, second = Holder(lock.exclusive), Holder(lock.exclusive)
    await first.holds.wait()
    await settled()
    assert not second.holds.is_set()
    await first.release()
    await second.holds.wait()
    await second.release()


async def test_whoever_stops_waiting_holds_up_nobody() -> None:
    lock = SharedLock()
    first = Holder(lock.shared)
    await first.holds.wait()
    given_up = Holder(lock.exclusive)
    await settled()
    late = Holder(lock.shared)
    given_up.task.cancel()
    await late.holds.wait()
    await asyncio.gather(first.release(), late.release())
