"""Records of a lesson: what every host stores of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from agent.teaching.plan import LessonPlan
from agent.teaching.types import GENERAL_TEXT, Opening, Outcome
from memory_store.vocabulary import (
    Attempt,
    Learning,
    NewProbe,
    NewUpdate,
    ProbeKind,
    Step,
    Verdict,
)


def attempt_of(
    lesson: LessonPlan, outcome: Outcome, environment: Mapping[str, str], seconds: float
) -> Attempt:
    """Makes the record of a lesson.

    Args:
        lesson: as planned.
        outcome: as reported by the learner.
        environment: fingerprint of the learner.
        seconds: wall-clock time without samples, which a replay does not repeat.
    """
    update = None
    if outcome.verdict is Verdict.LEARNED:
        update = _update_of(lesson, outcome, environment, seconds)
    return Attempt(
        fact_id=lesson.example.fact_id,
        verdict=outcome.verdict,
        reason=outcome.reason,
        policy=lesson.policy,
        learning=_learning_of(outcome),
        probes=_probes_of(lesson, outcome),
        update=update,
    )


def _learning_of(outcome: Outcome) -> Learning:
    """The summary that is stored with the fact."""
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
    """The summary after the first step of an attempt, for live display."""
    return Learning(
        learning_rates=(step.learning_rate,),
        probability_before=math.exp(opening.before.log_probability),
        probability_after=step.probability,
        answer_before=opening.before.text,
        answer_after="",
        curve=opening.curve,
        base_answer=opening.base_answer,
    )


def _update_of(
    lesson: LessonPlan, outcome: Outcome, environment: Mapping[str, str], seconds: float
) -> NewUpdate:
    """The row of the ledger."""
    if outcome.general_text:
        environment = {**environment, GENERAL_TEXT: outcome.general_text}
    return NewUpdate(
        fact_id=lesson.example.fact_id,
        base_version=lesson.base_version,
        policy=lesson.policy,
        steps=outcome.steps,
        digest_before=outcome.digest_before,
        digest_after=outcome.digest_after,
        algorithm=outcome.algorithm,
        environment=environment,
        seconds=seconds,
    )


def _probes_of(lesson: LessonPlan, outcome: Outcome) -> tuple[NewProbe, ...]:
    """Probes of the fact, of its correlated questions, and of its companions."""
    fact = lesson.example
    rows = [outcome.after.as_probe(ProbeKind.RETENTION, fact, fact.question)]
    for question, answer in zip(fact.correlated_questions, outcome.transfer, strict=True):
        rows.append(answer.as_probe(ProbeKind.TRANSFER, fact, question))
    # Empty if no update was made.
    for other, answer in zip(lesson.older, outcome.forgetting, strict=False):
        rows.append(answer.as_probe(ProbeKind.FORGETTING, other, other.question))
    return tuple(rows)


def row_without_steps(
    base_version: int,
    digest_before: str,
    digest_after: str,
    environment: Mapping[str, str],
    *,
    fact_id: str = "",
    seconds: float = 0.0,
) -> NewUpdate:
    """A row without steps: it records which version's weights are served from now on."""
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
