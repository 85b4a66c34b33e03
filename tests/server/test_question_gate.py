"""The way of questions to the learner: how many there may be, and what a dead learner leads to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from agent.errors import (
    DeadlyQuestionError,
    LearnerDiedError,
    LearnerUnavailableError,
    TooManyQuestionsError,
)
from agent.server.api.question_gate import QuestionGate
from agent.server.api.suspects import REFUSED_SECONDS, REMEMBERED, Suspects
from agent.server.shared_lock import SharedLock
from agent.teaching.types import Answer, Example, Generated

GONE = LearnerUnavailableError("the learner ended with code -9")


class SlowLearner:
    """Answers when it is told to; dies of some questions."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.deadly: set[str] = set()
        self.answering: list[str] = []
        self.together: list[list[str]] = []
        self.changed = asyncio.Event()

    @asynccontextmanager
    async def _one(self, question: str) -> AsyncIterator[None]:
        self.answering.append(question)
        self.together.append(list(self.answering))
        self.changed.set()
        try:
            await self.may_answer.wait()
            if question in self.deadly:
                raise GONE
            yield
        finally:
            self.answering.remove(question)

    async def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        async with self._one(question):
            yield "Pi", 3
            yield Generated(text="Piano", finished=True), 3

    async def score(self, question: str, answer: str) -> tuple[float, int, int]:
        async with self._one(question):
            return -0.5, 2, 3

    async def probe(self, example: Example, *, held: bool = True) -> tuple[list[Answer], int]:
        async with self._one(example.question):
            return [], 3

    async def until_answering(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.answering) < count:
                await self.changed.wait()
                self.changed.clear()


class View:
    def __init__(self) -> None:
        self.learner = SlowLearner()
        self.questions = SharedLock()

    async def current(self) -> SlowLearner:
        return self.learner


@pytest.fixture
def view() -> View:
    return View()


async def whole(asking: QuestionGate, question: str) -> str:
    *_, (said, _) = [piece async for piece in asking.ask(question, 8)]
    assert isinstance(said, Generated)
    return said.text


async def test_only_so_many_questions_wait_and_the_next_is_refused(view: View) -> None:
    """H6."""
    asking = QuestionGate(view, 2)
    waiting = [asyncio.create_task(whole(asking, f"{n}?")) for n in range(2)]
    await view.learner.until_answering(2)
    with pytest.raises(TooManyQuestionsError):
        await whole(asking, "One more?")
    with pytest.raises(TooManyQuestionsError):
        await asking.score("One more?", "Piano")
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    third = asyncio.create_task(whole(asking, "Third?"))
    view.learner.may_answer.set()
    assert await waiting[1] == await third == "Piano"
    assert view.questions.holders == 0


async def test_a_client_that_does_not_read_holds_up_nobody(view: View) -> None:
    """H6: its question has been answered, and left the lock, whether it reads that or not."""
    asking = QuestionGate(view, 1)
    view.learner.may_answer.set()
    async with aclosing(asking.ask("Sky?", 8)) as slow:
        assert await anext(slow) == ("Pi", 3)
        async with asyncio.timeout(10), view.questions.exclusive():
            pass
        assert await whole(asking, "Gem?") == "Piano"
        assert (await anext(slow))[0] == Generated(text="Piano", finished=True)


async def test_a_question_that_kills_learners_is_asked_alone_and_then_refused(view: View) -> None:
    """Low: a poisonous Ask, which clients sent again, killed four learners."""
    asking = QuestionGate(view, 9)
    view.learner.deadly = {"Poison?"}
    asked: list[Any] = [asyncio.create_task(whole(asking, q)) for q in ("Poison?", "Sky?")]
    await view.learner.until_answering(2)
    view.learner.may_answer.set()
    died, _ = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(died, LearnerDiedError)

    view.learner.may_answer.clear()
    beside = asyncio.create_task(whole(asking, "Sky?"))
    await view.learner.until_answering(1)
    again = asyncio.create_task(whole(asking, "Poison?"))
    view.learner.may_answer.set()
    assert await beside == "Piano"
    with pytest.raises(LearnerDiedError):
        await again
    assert view.learner.together[-1] == ["Poison?"]
    before = len(view.learner.together)
    with pytest.raises(DeadlyQuestionError, match="died 2 times"):
        await whole(asking, "Poison?")
    assert len(view.learner.together) == before
    assert await whole(asking, "Sky?") == "Piano"


async def test_a_learner_that_was_replaced_was_not_killed(view: View) -> None:
    """After a forget another one serves, and who was still being answered may ask that one."""
    asking = QuestionGate(view, 9)
    old = view.learner
    old.deadly = {"Sky?"}
    asked = asyncio.create_task(whole(asking, "Sky?"))
    await old.until_answering(1)
    view.learner = SlowLearner()
    view.learner.may_answer.set()
    old.may_answer.set()
    with pytest.raises(LearnerUnavailableError):
        await asked
    assert await whole(asking, "Sky?") == "Piano"


async def test_who_was_only_beside_it_is_cleared_when_answered_alone(view: View) -> None:
    asking = QuestionGate(view, 9)
    view.learner.may_answer.set()
    for _ in range(5):  # each time another question is to blame
        view.learner.deadly = {"Sky?"}
        with pytest.raises(LearnerDiedError):
            await asking.score("Sky?", "Piano")
        view.learner.deadly = set()
        assert await asking.score("Sky?", "Piano") == (-0.5, 2, 3)


def test_a_refused_question_gets_another_chance_and_memory_is_bounded() -> None:
    now = 0.0
    suspects = Suspects(now=lambda: now)
    for _ in range(2):
        suspects.learner_died("Poison?")
    with pytest.raises(DeadlyQuestionError):
        suspects.must_be_alone("Poison?")
    now += REFUSED_SECONDS
    assert suspects.must_be_alone("Poison?")
    suspects.learner_died("Poison?")
    with pytest.raises(DeadlyQuestionError):
        suspects.must_be_alone("Poison?")
    for number in range(REMEMBERED):
        suspects.learner_died(str(number))
    assert not suspects.must_be_alone("Poison?")
