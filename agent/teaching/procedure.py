"""Teaching one fact, the same for every host: loop, reviews, branches, notebooks and suites.

    lesson = plan(fact, version, defaults)            # which policy, how many companions
    lesson = lesson.accompanied_by(companions)        # read by the host
    outcome = await drain(learner.learn(lesson), on_step)
    attempt = attempt_of(lesson, outcome, environment, seconds)
    update = record(attempt)                          # at the head, on a branch, or with a review

Hosts differ in how they call the learner (`drain` or `drain_now`) and in where they record.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

from agent.errors import InvalidFactError, LearnerUnavailableError, UnteachableError
from agent.teaching.learner_protocol import Learner
from agent.teaching.types import Example, Opening, Outcome
from memory_store.vocabulary import Fact, NewProbe, ProbeKind, Step, Verdict

OnStep = Callable[[Step, Opening | None], None]
Progress = Opening | Step | Outcome


@dataclass(slots=True)
class _Steps:
    """Reports steps; the first step of each attempt comes with its opening."""

    on_step: OnStep
    opening: Opening | None = None

    def take(self, progress: Progress) -> Outcome | None:
        match progress:
            case Outcome():
                return progress
            case Opening():
                self.opening = progress
            case Step():
                self.on_step(progress, self.opening)
                self.opening = None
        return None


async def drain(learning: AsyncIterator[Progress], on_step: OnStep) -> Outcome:
    """Waits for a fact to be learned on the learner's working copy.

    Args:
        learning: from `Learner.learn`.
        on_step: called with each step, and with the opening at the first step of an attempt.

    Raises:
        LearnerUnavailableError: the learner died.
        LearningFailedError: this fact could not be learned.
        UnteachableError: it can never be; it was accepted before its tokens could be counted.
        StaleVersionError: the learner has another version than the lesson.
    """
    steps = _Steps(on_step)
    try:
        async for progress in learning:
            if (outcome := steps.take(progress)) is not None:
                return outcome
    except InvalidFactError as error:
        raise UnteachableError(str(error)) from error
    raise LearnerUnavailableError("it ended without an outcome")


def drain_now(learning: Iterable[Progress], on_step: OnStep) -> Outcome:
    """As `drain`, for a learner in this process; its errors are passed on."""
    steps = _Steps(on_step)
    for progress in learning:
        if (outcome := steps.take(progress)) is not None:
            return outcome
    raise AssertionError("learning ends with an outcome")


async def with_samples(
    learner: Learner, example: Example, outcome: Outcome, samples: int, stopped: asyncio.Event
) -> Outcome:
    """Adds counts of sampled texts to the outcome, for each of the fact's questions.

    Returns the outcome unchanged if there was no update, or if the server stops meanwhile: a
    finished update must not wait for its samples then.

    Raises:
        LearnerUnavailableError: the learner died.
        StaleVersionError: it has learned another fact since.
    """
    if not samples or outcome.verdict is not Verdict.LEARNED or stopped.is_set():
        return outcome
    sampling = asyncio.ensure_future(learner.sample(example, samples))
    stopping = asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait([sampling, stopping], return_when=asyncio.FIRST_COMPLETED)
        return sampling.result() if sampling.done() else outcome
    finally:
        for task in (sampling, stopping):
            task.cancel()
        await asyncio.gather(sampling, stopping, return_exceptions=True)


async def probe_retention(
    learner: Learner, fact: Fact, *, held: bool = True
) -> tuple[NewProbe, int]:
    """Asks a learner a fact's own question; returns the probe and the version that answered.

    `held` is False for a fact that these weights need not know, such as a forgotten one.

    Raises:
        LearnerUnavailableError: the learner died.
        LearningFailedError: it cannot answer this one.
    """
    example = Example.of(fact)
    answers, version = await learner.probe(example, held=held)
    return answers[0].as_probe(ProbeKind.RETENTION, example, fact.question), version
