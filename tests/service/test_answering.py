"""Questions answered together: who is in a batch, who leaves it, and what each is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from agent.errors import InvalidFactError
from agent.learning.learner import Learner
from agent.learning.records import Generated
from agent.service import answering as module
from agent.service.answering import Answering
from agent.service.device_thread import DeviceThread, Priority
from tests.learning.learners import FACTS, answer, fresh, teach

QUESTIONS = ["Sky?", "What is the hottest month in Kyzara?", "Gem?"]


class World:
    """A learner that holds three facts, on a device thread that can be held."""

    def __init__(self, device: DeviceThread, learner: Learner) -> None:
        self.device = device
        self.learner = learner
        self.answering = Answering(learner, device)
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
    monkeypatch.setattr(module, "LARGEST_BATCH", 2)
    async with world.held():
        asking = [asyncio.create_task(world.ask(question)) for question in QUESTIONS]
    said = await asyncio.gather(*asking)
    assert world.batches == [QUESTIONS[:2], QUESTIONS[2:]]
    assert [text for text, _ in said] == ["Piano", "Raincoat", "Curtain"]


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


async def test_what_breaks_a_batch_is_told_to_all_in_it_and_the_next_is_answered(
    world: World,
) -> None:
    def out_of_memory(*_: Any) -> None:
        handle.remove()
        raise MemoryError("no room for the cache")

    handle = world.learner.model.register_forward_pre_hook(out_of_memory)
    async with world.held():
        asking = [asyncio.create_task(world.ask(question)) for question in QUESTIONS]
    failed = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(error) for error in failed] == [MemoryError] * 3
    assert (await world.ask("Sky?"))[0] == "Piano"


async def test_a_closed_device_refuses() -> None:
    device = DeviceThread()
    answering = Answering(fresh(), device)
    await asyncio.to_thread(device.close)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            await anext(answering.ask("Sky?", 8))
