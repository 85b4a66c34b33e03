"""Having facts learned and probed, and what came of it as the records that are stored."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence

from agent.errors import InvalidFactError, LearnerUnavailableError, UnteachableError
from agent.teaching.learner_protocol import Learner
from agent.teaching.types import GENERAL_TEXT, Example, Opening, Outcome
from memory_store.vocabulary import (
    Fact,
    Learning,
    NewProbe,
    NewUpdate,
    Policy,
    ProbeKind,
    Step,
    Verdict,
)

OnStep = Callable[[Step, Opening | None], None]


async def learn_fact(
    learner: Learner,
    fact: Fact,
    policy: Policy,
    base_version: int,
    older: Sequence[Fact],
    on_step: OnStep,
    *,
    again: bool = False,
) -> Outcome:
    """Has a fact learned on the learner's working copy; `again` on a branch.

    `on_step` is called with each step; with the first one of an attempt, its opening too.

    Raises:
        LearnerUnavailableError: the learner died.
        LearningFailedError: this fact could not be learned.
        UnteachableError: it never can be; it was accepted before its tokens could be counted.
        StaleVersionError: the learner is at another version than `base_version`.
    """
    opening = None
    older_examples = [Example.of(other) for other in older]
    example = Example.of(fact)
    try:
        async for progress in learner.learn(example, policy, base_version, older_examples, again):
            if isinstance(progress, Outcome):
                return progress
            if isinstance(progress, Opening):
                opening = progress
                continue
            on_step(progress, opening)
            opening = None
    except InvalidFactError as error:
        raise UnteachableError(str(error)) from error
    raise LearnerUnavailableError("it ended without an outcome")


async def with_samples(
    learner: Learner, fact: Fact, outcome: Outcome, samples: int, stopped: asyncio.Event
) -> Outcome:
    """The outcome with counts of so many texts for each of the fact's questions.

    Without them if there was no update, or if the server is stopped meanwhile: an update that is
    made must not wait behind its samples then.

    Raises:
        LearnerUnavailableError: the learner died.
        StaleVersionError: it has learned another fact since.
    """
    if not samples or outcome.verdict is not Verdict.LEARNED or stopped.is_set():
        return outcome
    sampling = asyncio.ensure_future(learner.sample(Example.of(fact), samples))
    stopping = asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait([sampling, stopping], return_when=asyncio.FIRST_COMPLETED)
        return sampling.result() if sampling.done() else outcome
    finally:
        for task in (sampling, stopping):
            task.cancel()
        await asyncio.gather(sampling, stopping, return_exceptions=True)


def learning_of(outcome: Outcome) -> Learning:
    """The summary that is kept with the fact."""
    return Learning(
        learning_rates=tuple(step.learning_rate for step in outcome.steps),
        probability_before=math.exp(outcome.before.log_probability),
        probability_after=math.exp(outcome.after.log_probability),
        answer_before=outcome.before.text,
        answer_after=outcome.after.text,
        curve=outcome.curve,
        base_answer=outcome.base_answer,
        leak=outcome.leak,
        drift=outcome.drift,
        refusal=outcome.refusal,
    )


def learning_so_far(opening: Opening, step: Step) -> Learning:
    """What those who watch are told with the first step of an attempt."""
    return Learning(
        learning_rates=(step.learning_rate,),
        probability_before=math.exp(opening.before.log_probability),
        probability_after=step.probability,
        answer_before=opening.before.text,
        answer_after="",
        curve=opening.curve,
        base_answer=opening.base_answer,
    )


def update_of(
    fact: Fact,
    outcome: Outcome,
    policy: Policy,
    base_version: int,
    environment: Mapping[str, str],
    seconds: float,
) -> NewUpdate:
    """The row of the ledger."""
    if outcome.general_text:
        environment = {**environment, GENERAL_TEXT: outcome.general_text}
    return NewUpdate(
        fact_id=fact.id,
        base_version=base_version,
        policy=policy,
        steps=outcome.steps,
        digest_before=outcome.digest_before,
        digest_after=outcome.digest_after,
        algorithm=outcome.algorithm,
        environment=environment,
        seconds=seconds,
    )


def probes_of(fact: Fact, older: Sequence[Fact], outcome: Outcome) -> list[NewProbe]:
    """What was measured: the fact itself, its correlated questions, older facts."""
    rows = [outcome.after.as_probe(ProbeKind.RETENTION, fact, fact.question)]
    for question, answer in zip(fact.correlated_questions, outcome.transfer, strict=True):
        rows.append(answer.as_probe(ProbeKind.TRANSFER, fact, question))
    # Empty if no update was made.
    for other, answer in zip(older, outcome.forgetting, strict=False):
        rows.append(answer.as_probe(ProbeKind.FORGETTING, other, other.question))
    return rows


async def probe_retention(
    learner: Learner, fact: Fact, *, held: bool = True
) -> tuple[NewProbe, int]:
    """Puts a fact's own question to a learner; the row, and the version that answered.

    Not `held`: a fact that these weights need not know, as the one that is forgotten.

    Raises:
        LearnerUnavailableError: the learner died.
        LearningFailedError: it cannot answer this one.
    """
    answers, version = await learner.probe(Example.of(fact), held=held)
    return answers[0].as_probe(ProbeKind.RETENTION, fact, fact.question), version


def row_without_steps(
    base_version: int,
    digest_before: str,
    digest_after: str,
    environment: Mapping[str, str],
    *,
    fact_id: str = "",
    seconds: float = 0.0,
) -> NewUpdate:
    """A row that changes no weights: it says which version's weights are served from now on."""
    return NewUpdate(
        fact_id=fact_id,
        base_version=base_version,
        steps=(),
        digest_before=digest_before,
        digest_after=digest_after,
        algorithm="none",
        environment=environment,
        seconds=seconds,
    )
