"""Turns and slices of the loop's time: in order, a few at a time, and never held for long."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

import pytest

from agent.errors import InvalidFactError
from agent.server.api import memory_servicer
from agent.server.api.pacer import BURST, Pacer, Slices
from agent.wire.validation import FactRules
from continual.v1 import memory_pb2 as pb
from tests.server.serving import serving


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


class Work:
    """Steps of 4 ms each, by a clock of their own; notes the longest turn of the loop."""

    def __init__(self) -> None:
        self.now = 0.0
        self.longest = 0.0
        self._turn_began = 0.0

    def clock(self) -> float:
        return self.now

    def step(self) -> None:
        self.now += 0.004
        self.longest = max(self.longest, self.now - self._turn_began)

    def steps(self, count: int) -> Generator[None, None, int]:
        for _ in range(count):
            self.step()
            yield
        return count

    async def watch(self) -> None:
        """Is there in every turn of the loop, as other calls would be."""
        while True:
            self._turn_began = self.now
            await asyncio.sleep(0)


async def test_long_work_of_many_holds_the_loop_for_one_slice_a_turn() -> None:
    """M11: whatever there is to do, others have their turn after some milliseconds."""
    work = Work()
    slices = Slices(seconds=0.01, clock=work.clock)
    watching = asyncio.create_task(work.watch())
    await asyncio.sleep(0)
    done = await asyncio.gather(*(slices.run(work.steps(100)) for _ in range(20)))
    watching.cancel()
    assert done == [100] * 20
    assert work.now == pytest.approx(20 * 100 * 0.004)
    assert work.longest < 0.02


async def test_what_work_raises_is_raised_and_the_next_goes_on() -> None:
    """M11."""

    def failing() -> Iterator[None]:
        yield
        raise InvalidFactError("answer", "is too long")

    slices = Slices()
    with pytest.raises(InvalidFactError, match="too long"):
        await slices.run(failing())  # type: ignore[arg-type]
    assert await slices.run(Work().steps(3)) == 3


class SlowRules(FactRules):
    """Every text takes 4 ms of the clock of `work`."""

    work: Work

    def _check_tokens(self, field: str, question: str, answer: str) -> None:
        self.work.step()

    def is_quick(self, request: pb.TeachRequest) -> bool:
        return False


async def test_a_batch_or_a_stream_of_large_facts_holds_the_loop_for_one_slice_a_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M11: a batch of 1 MiB held it for 8.6 s."""
    work = Work()
    monkeypatch.setattr(memory_servicer, "Slices", partial(Slices, clock=work.clock))
    async with serving(tmp_path) as parts:
        parts.rules = SlowRules(None)
        parts.rules.work = work
        facts = [
            pb.TeachRequest(
                question=f"{n}?", answer="Piano", correlated_questions=[f"{k}?" for k in range(32)]
            )
            for n in range(50)
        ]
        watching = asyncio.create_task(work.watch())
        batch, stream = await asyncio.gather(
            parts.memory.TeachBatch(pb.TeachBatchRequest(facts=facts)),
            _all(parts.memory.TeachStream(pb.TeachStreamRequest(teach=fact) for fact in facts)),
        )
        watching.cancel()
    assert len(batch.results) == len(stream) == 50
    assert work.now == pytest.approx(2 * 50 * 33 * 0.004)
    assert work.longest < 0.02


async def _all(call) -> list[pb.TeachStreamResponse]:
    return [response async for response in call]
