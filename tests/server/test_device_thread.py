"""The device's thread: who goes first, and what becomes of jobs that fail or are left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest

from agent.learner.device_thread import DeviceThread, Priority


@pytest.fixture
async def device() -> AsyncIterator[DeviceThread]:
    thread = DeviceThread()
    yield thread
    await asyncio.to_thread(thread.close)


async def items(device: DeviceThread, priority: Priority, job) -> list[Any]:
    return [item async for item in device.stream(priority, job)]


async def queued(device: DeviceThread, *coroutines) -> list[asyncio.Task[Any]]:
    """Hands in jobs while the thread is held, so that all of them wait together."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go_on.wait(10)

    holder = asyncio.create_task(device.call(Priority.ANSWER, hold))
    await asyncio.to_thread(held.wait)
    tasks = []
    for coroutine in coroutines:
        tasks.append(asyncio.create_task(coroutine))
        await asyncio.sleep(0)  # in this order
    go_on.set()
    await holder
    return tasks


async def test_the_most_urgent_job_goes_first_and_equals_in_order(device: DeviceThread) -> None:
    ran: list[str] = []

    def job(name: str):
        def note() -> Iterator[None]:
            ran.append(name)
            yield

        return note

    tasks = await queued(
        device,
        items(device, Priority.AUDIT, job("audit")),
        items(device, Priority.LEARN, job("first update")),
        items(device, Priority.LEARN, job("second update")),
        items(device, Priority.ANSWER, job("answer")),
    )
    await asyncio.gather(*tasks)
    assert ran == ["answer", "first update", "second update", "audit"]


async def test_an_answer_comes_between_the_units_of_an_update(device: DeviceThread) -> None:
    ran: list[str] = []
    at_step_2, asked = threading.Event(), threading.Event()

    def update() -> Iterator[int]:
        for step in (1, 2, 3, 4):
            if step == 2:
                at_step_2.set()
                assert asked.wait(10)
            ran.append(f"step {step}")
            yield step

    learning = asyncio.create_task(items(device, Priority.LEARN, update))
    await asyncio.to_thread(at_step_2.wait)
    answering = asyncio.create_task(device.call(Priority.ANSWER, lambda: ran.append("answer")))
    await asyncio.sleep(0)  # it is in the queue
    asked.set()
    await answering
    assert await learning == [1, 2, 3, 4]
    assert ran == ["step 1", "step 2", "answer", "step 3", "step 4"]


async def test_an_answer_comes_in_the_pauses_of_a_unit_and_nothing_else(
    device: DeviceThread,
) -> None:
    ran: list[str] = []
    begun, asked = threading.Event(), threading.Event()

    def step() -> None:
        ran.append("begins")
        begun.set()
        assert asked.wait(10)
        device.pause()
        ran.append("ends")

    learning = asyncio.create_task(device.call(Priority.LEARN, step))
    await asyncio.to_thread(begun.wait)
    others = [
        asyncio.create_task(device.call(priority, partial(ran.append, name)))
        for priority, name in [
            (Priority.LEARN, "commit"),
            (Priority.AUDIT, "audit"),
            (Priority.ANSWER, "answer"),
        ]
    ]
    await asyncio.sleep(0)  # they are in the queue
    asked.set()
    await asyncio.gather(learning, *others)
    assert ran == ["begins", "answer", "ends", "commit", "audit"]


async def test_answers_take_turns(device: DeviceThread) -> None:
    ran: list[str] = []

    def answer(name: str, tokens: int):
        def job() -> Iterator[None]:
            for token in range(tokens):
                ran.append(f"{name}{token}")
                yield

        return job

    tasks = await queued(
        device,
        items(device, Priority.ANSWER, answer("long", 4)),
        items(device, Priority.ANSWER, answer("short", 1)),
    )
    await asyncio.gather(*tasks)
    assert ran == ["long0", "short0", "long1", "long2", "long3"]


async def test_learning_has_its_share_however_much_is_asked() -> None:
    clock = 0.0
    device = DeviceThread(now=lambda: clock)
    spent = {"answers": 0.0, "learning": 0.0}

    def work(kind: str, seconds: float, units: int):
        def job() -> Iterator[None]:
            nonlocal clock
            for _ in range(units):
                clock += seconds
                spent[kind] += seconds
                yield
            if kind == "answers":
                told.append(dict(spent))

        return job

    told: list[dict[str, float]] = []
    tasks = await queued(
        device,
        items(device, Priority.LEARN, work("learning", 0.3, 100)),
        items(device, Priority.ANSWER, work("answers", 0.1, 60)),
    )
    await asyncio.gather(*tasks)
    await asyncio.to_thread(device.close)
    # 6 s of answers, and 3 s of learning among them, give or take a unit and the patience.
    assert told[0]["answers"] == pytest.approx(6)
    assert told[0]["learning"] == pytest.approx(3, abs=0.41)


async def test_a_short_answer_is_not_interrupted_after_learning_has_had_its_time() -> None:
    clock = 0.0
    device = DeviceThread(now=lambda: clock)
    ran: list[str] = []

    def work(kind: str, seconds: float, units: int):
        def job() -> Iterator[None]:
            nonlocal clock
            for _ in range(units):
                clock += seconds
                ran.append(kind)
                yield

        return job

    tasks = await queued(
        device,
        items(device, Priority.LEARN, work("step", 10.0, 2)),
        items(device, Priority.ANSWER, work("token", 0.02, 9)),
    )
    await asyncio.gather(*tasks)
    await asyncio.to_thread(device.close)
    assert ran == ["token"] * 9 + ["step"] * 2


async def test_updates_do_not_mix(device: DeviceThread) -> None:
    ran: list[str] = []

    def update(name: str):
        def steps() -> Iterator[None]:
            for step in range(3):
                ran.append(f"{name}{step}")
                yield

        return steps

    tasks = await queued(
        device,
        items(device, Priority.LEARN, update("a")),
        items(device, Priority.LEARN, update("b")),
    )
    await asyncio.gather(*tasks)
    assert ran == ["a0", "a1", "a2", "b0", "b1", "b2"]


async def test_a_job_that_nobody_waits_for_is_closed_on_the_thread(device: DeviceThread) -> None:
    closed_by: list[str] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed_by.append(threading.current_thread().name)

    async def wait_for_ever() -> None:
        async for _ in device.stream(Priority.LEARN, endless):
            started.set()

    started = asyncio.Event()
    task = asyncio.create_task(wait_for_ever())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # Less urgent, so it runs only once the endless job is out of the way.
    await device.call(Priority.AUDIT, lambda: None)
    assert closed_by == ["device"]


async def test_a_job_cancelled_before_its_turn_never_starts(device: DeviceThread) -> None:
    ran: list[str] = []
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go_on.wait(10)

    holder = asyncio.create_task(device.call(Priority.ANSWER, hold))
    await asyncio.to_thread(held.wait)
    task = asyncio.create_task(device.call(Priority.LEARN, lambda: ran.append("ran")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await holder
    await device.call(Priority.AUDIT, lambda: None)
    assert ran == []


async def test_an_exception_reaches_who_waits_and_the_thread_goes_on(
    device: DeviceThread,
) -> None:
    def fails() -> Iterator[int]:
        yield 1
        raise ArithmeticError("the loss is NaN")

    stream = device.stream(Priority.LEARN, fails)
    assert await anext(stream) == 1
    with pytest.raises(ArithmeticError, match="the loss is NaN"):
        await anext(stream)
    assert await device.call(Priority.ANSWER, lambda: 7) == 7


async def test_an_exception_before_the_first_unit_reaches_who_waits(device: DeviceThread) -> None:
    def cannot_start() -> Iterator[int]:
        raise LookupError("no such example")

    with pytest.raises(LookupError, match="no such example"):
        await items(device, Priority.LEARN, cannot_start)


async def test_a_closed_thread_refuses_jobs() -> None:
    device = DeviceThread()
    await asyncio.to_thread(device.close)
    with pytest.raises(RuntimeError, match="closed"):
        await device.call(Priority.ANSWER, lambda: None)
    assert not any(thread.name == "device" for thread in threading.enumerate())


async def test_no_progress_is_told_and_a_pause_is_progress() -> None:
    """M9."""
    clock = 0.0
    device = DeviceThread(now=lambda: clock)
    told: list[float] = []
    assert device.stalled_seconds() == 0

    def unit() -> Iterator[None]:
        nonlocal clock
        for pauses in (False, True):
            clock += 5
            if pauses:
                device.pause()
            told.append(device.stalled_seconds())
            clock += 2
            told.append(device.stalled_seconds())
            yield

    await items(device, Priority.LEARN, unit)
    await device.call(Priority.AUDIT, lambda: None)
    assert told == [5, 7, 0, 2]
    clock += 100
    await asyncio.to_thread(device.close)
    assert device.stalled_seconds() == 0  # idle, not hung
