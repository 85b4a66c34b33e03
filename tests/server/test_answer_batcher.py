"""Questions answered together: who is in a batch, who leaves it, and what each is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import pytest

from agent.errors import InvalidFactError, MemoryShortageError
from agent.learner import answer_batcher as module
from agent.learner.answer_batcher import AnswerBatcher
from agent.learner.core import Learner
from agent.learner.device_thread import DeviceThread, Priority
from agent.teaching.types import Generated
from tests.learner.learners import FACTS, answer, fresh, teach

QUESTIONS = ["Sky?", "What is the hottest month in Kyzara?", "Gem?"]


class World:
    """A learner that holds three facts, on a device thread that can be held."""

    def __init__(self, device: DeviceThread, learner: Learner) -> None:
        self.device = device
        self.learner = learner
        self.answering = AnswerBatcher(learner, device)
        self.batches: list[list[str]] = []

    def note_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = self.learner.ask_together

        def noted(asked: Any) -> Any:
            self.batches.append([one.question for one in asked])
            return original(asked)

        monkeypatch.setattr(self.learner, "ask_together", noted)

    async def ask(self, question: str, tokens: int = 32) -> tuple[str, set[int]]:
        """The whole answer, and the versions that its pieces came from."""
        said = [item async for item in self.answering.ask(question, tokens)]
        *pieces, (whole, _) = said
        assert isinstance(whole, Generated)
        assert "".join(str(piece) for piece, _ in pieces) == whole.text
        return whole.text, {version for _, version in said}

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Inside, the device does nothing, so that whoever asks waits."""
        begun, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            begun.set()
            assert go_on.wait(10)

        holding = asyncio.create_task(self.device.call(Priority.LEARN, hold))
        await asyncio.to_thread(begun.wait)
        try:
            yield
            await asyncio.sleep(0)  # everybody has asked
            await asyncio.sleep(0)
        finally:
            go_on.set()
        await holding


@pytest.fixture(scope="module")
def taught() -> Learner:
    learner = fresh()
    facts = [FACTS[0], FACTS[2], FACTS[3]]
    for number, fact in enumerate(facts):
        teach(learner, fact, facts[:number])
    return learner


@pytest.fixture
async def world(taught: Learner, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    device = DeviceThread()
    world = World(device, taught)
    world.note_batches(monkeypatch)
    yield world
    await asyncio.to_thread(device.close)


async def test_those_who_wait_are_answered_together_and_as_alone(world: World) -> None:
    async with world.held():
        asking = [asyncio.create_task(world.ask(question)) for question in QUESTIONS]
    said = await asyncio.gather(*asking)
    assert world.batches == [QUESTIONS]
    assert [text for text, _ in said] == ["Piano", "Raincoat", "Curtain"]
    assert {version for _, versions in said for version in versions} == {3}
    assert [answer(world.learner, question) for question in QUESTIONS] == [t for t, _ in said]


async def test_a_batch_has_a_limit_and_the_others_are_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.answering._most_rows = 2
    monkeypatch.setattr(module, "MOST_ROWS", 2)
    async with world.held():
        asking = [asyncio.create_task(world.ask(question)) for question in QUESTIONS]
    said = await asyncio.gather(*asking)
    assert world.batches == [QUESTIONS[:2], QUESTIONS[2:]]
    assert [text for text, _ in said] == ["Piano", "Raincoat", "Curtain"]


def note_rows(world: World) -> tuple[set[int], Any]:
    """How many rows were ever live together, and the hook that notes it."""
    seen: set[int] = set()
    handle = world.learner.model.register_forward_pre_hook(
        lambda *_: seen.add(len(world.answering._live))
    )
    return seen, handle


async def test_rows_are_bounded_over_all_batches_and_everybody_is_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H6: each asks when the batches before have begun, so that each would be one more batch."""
    monkeypatch.setattr(module, "MOST_ROWS", 3)
    world.answering._most_rows = 3
    seen, handle = note_rows(world)
    async with AsyncExitStack() as stack:
        streams = []
        for _ in range(3):
            stream = await stack.enter_async_context(aclosing(world.answering.ask("Who?", 100)))
            await anext(stream)  # its batch has begun
            streams.append(stream)
        late = [asyncio.create_task(world.ask(question)) for question in QUESTIONS]
        for _ in range(3):
            await anext(streams[0])  # the device turns to those who wait meanwhile
    assert [(await one)[0] for one in late] == ["Piano", "Raincoat", "Curtain"]
    handle.remove()
    assert max(seen) == 3


async def test_tokens_are_bounded_too_but_one_row_always_has_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H6."""
    monkeypatch.setattr(module, "MOST_TOKENS", 10)
    async with world.held():
        asking = [asyncio.create_task(world.ask(question)) for question in QUESTIONS]
    await asyncio.gather(*asking)
    assert world.batches == [[question] for question in QUESTIONS]


async def test_whoever_left_the_line_takes_no_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H6."""
    world.answering._most_rows = 1
    monkeypatch.setattr(module, "MOST_ROWS", 1)
    async with world.held():
        leaving = asyncio.create_task(world.ask(QUESTIONS[1]))
        staying = asyncio.create_task(world.ask(QUESTIONS[0]))
        await asyncio.sleep(0)
        leaving.cancel()
    assert (await staying)[0] == "Piano"
    assert world.batches == [[QUESTIONS[0]]]


async def test_whoever_leaves_before_the_batch_is_not_computed(world: World) -> None:
    rows: list[int] = []
    handle = world.learner.model.register_forward_pre_hook(
        lambda _, __, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    async with world.held():
        leaving = asyncio.create_task(world.ask(QUESTIONS[1]))
        staying = asyncio.create_task(world.ask(QUESTIONS[0]))
        await asyncio.sleep(0)
        leaving.cancel()
    assert (await staying)[0] == "Piano"
    handle.remove()
    assert set(rows) == {1}


async def test_whoever_leaves_in_the_middle_frees_the_device(world: World) -> None:
    async with aclosing(world.answering.ask("Who?", 512)) as long:
        await anext(long)
    assert (await world.ask("Sky?"))[0] == "Piano"
    # Less urgent than any answer: the long one is over.
    await world.device.call(Priority.AUDIT, lambda: None)
    assert not world.device._answers


async def test_a_question_without_room_is_refused_and_the_others_answered(world: World) -> None:
    async with world.held():
        refused = asyncio.create_task(world.ask("x" * 600))
        answered = asyncio.create_task(world.ask("Sky?"))
    assert (await answered)[0] == "Piano"
    with pytest.raises(InvalidFactError, match="512 tokens"):
        await refused


def failing(world: World, error: Exception, times: int, first: int = 0) -> Any:
    """So many passes over the served weights fail, after the first ones."""
    left = [first + times]

    def fail(*_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            handle.remove()
        elif left[0] < times:
            raise error

    handle = world.learner.model.register_forward_pre_hook(fail)
    return handle


async def test_what_breaks_a_batch_is_told_to_all_in_it_and_the_next_is_answered(
    world: World,
) -> None:
    failing(world, RuntimeError("shapes do not fit"), 1)
    async with world.held():
        asking = [asyncio.create_task(world.ask(question)) for question in QUESTIONS]
    failed = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(error) for error in failed] == [RuntimeError] * 3
    assert (await world.ask("Sky?"))[0] == "Piano"


async def test_after_a_shortage_fewer_are_answered_together_and_all_are_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H6."""
    freed: list[bool] = []
    monkeypatch.setattr(world.learner, "free_cached_memory", lambda: freed.append(True))
    failing(world, MemoryError("no room for the cache"), 1)
    async with world.held():
        asking = [asyncio.create_task(world.ask(question)) for question in QUESTIONS]
    assert [text for text, _ in await asyncio.gather(*asking)] == ["Piano", "Raincoat", "Curtain"]
    assert world.batches[:2] == [QUESTIONS, QUESTIONS[:1]]
    assert freed
    assert world.answering._most_rows > 1  # what went well lets more in again


async def test_a_shortage_is_told_who_has_heard_a_part_or_meets_it_twice(world: World) -> None:
    """H6."""
    failing(world, MemoryError("no room"), 1, first=4)
    with pytest.raises(MemoryShortageError, match="no room"):
        await world.ask("What is the hottest month in Kyzara?")
    failing(world, MemoryError("no room"), 2)
    with pytest.raises(MemoryShortageError, match="no room"):
        await world.ask("Sky?")
    assert (await world.ask("Sky?"))[0] == "Piano"


async def test_a_closed_device_refuses() -> None:
    device = DeviceThread()
    answering = AnswerBatcher(fresh(), device)
    await asyncio.to_thread(device.close)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            await anext(answering.ask("Sky?", 8))
