"""Memory that runs out in the learner's process: told as that, and nothing is lost (H6)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from agent.errors import LearningFailedError, MemoryShortageError
from agent.learner.core import Learner
from agent.teaching.plan import LessonPlan
from agent.teaching.types import Outcome
from tests.learner.learners import FACTS, POLICY, fresh, lesson
from tests.learner.linked import linked

LESSON = LessonPlan(example=FACTS[0], policy=POLICY, base_version=0)
# What torch raises on a CPU, where it has no error of its own.
ON_CPU = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 1 GiB")


def fail_once(learner: Learner, error: Exception) -> None:
    """The next pass over the working copy fails."""

    def fail(*_: Any) -> None:
        handle.remove()
        raise error

    handle = learner.workbench.working.register_forward_pre_hook(fail)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), MemoryError(), ON_CPU])
async def test_a_shortage_is_told_as_one_and_the_fact_can_be_learned_after_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = fresh()
    freed: list[bool] = []
    monkeypatch.setattr(learner, "free_memory", lambda: freed.append(True))
    fail_once(learner, error)
    async with linked(learner) as client:
        with pytest.raises(MemoryShortageError):
            _ = [step async for step in client.learn(LESSON)]
        assert freed
        *_, outcome = [step async for step in client.learn(LESSON)]
        assert isinstance(outcome, Outcome)
        assert outcome.verdict == "learned"


async def test_a_shortage_of_a_score_frees_nothing_that_an_update_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = fresh()
    freed: list[str] = []
    for name in ("free_memory", "free_cached_memory"):
        monkeypatch.setattr(learner, name, partial(freed.append, name))

    def fail(*_: Any) -> None:
        handle.remove()
        raise ON_CPU

    handle = learner.model.register_forward_pre_hook(fail)
    async with linked(learner) as client:
        with pytest.raises(MemoryShortageError):
            await client.score("Sky?", "Piano")
        assert (await client.score("Sky?", "Piano"))[1] > 0
    assert freed == ["free_cached_memory"]


async def test_another_failure_is_no_shortage() -> None:
    learner = fresh()
    fail_once(learner, RuntimeError("shapes do not fit"))
    async with linked(learner) as client:
        with pytest.raises(LearningFailedError) as failed:
            _ = [step async for step in client.learn(LESSON)]
    assert not isinstance(failed.value, MemoryShortageError)


def test_what_is_given_back_is_made_anew() -> None:
    learner = fresh()
    learner.free_memory()
    *_, outcome = learner.learn(lesson(FACTS[0], POLICY, 0))
    assert isinstance(outcome, Outcome)
