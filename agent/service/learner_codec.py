"""Records to and from the messages between server and learner."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

from agent.learning.records import (
    Answer,
    Example,
    LearnerDescription,
    Opening,
    Outcome,
    ReplayedUpdate,
)
from continual.learner.v1 import learner_pb2 as pb
from memory_store.vocabulary import Guards, Policy, RatePoint, Step, Update


def encode_example(example: Example) -> pb.Example:
    return pb.Example(
        fact_id=example.fact_id,
        question=example.question,
        answer=example.answer,
        correlated_questions=example.correlated_questions,
        base_answer=example.base_answer,
    )


def decode_example(message: pb.Example) -> Example:
    return Example(
        fact_id=message.fact_id,
        question=message.question,
        answer=message.answer,
        correlated_questions=tuple(message.correlated_questions),
        base_answer=message.base_answer if message.HasField("base_answer") else None,
    )


def encode_policy(policy: Policy) -> pb.Policy:
    return pb.Policy(
        name=policy.name,
        learning_rate=policy.learning_rate,
        max_steps=policy.max_steps,
        guards=pb.Guards(**asdict(policy.guards)) if policy.guards else None,
        predictor=policy.predictor,
        gated=policy.gated,
    )


def decode_policy(message: pb.Policy) -> Policy:
    guards = message.guards
    return Policy(
        name=message.name,
        learning_rate=message.learning_rate,
        max_steps=message.max_steps,
        guards=Guards(
            candidates=guards.candidates,
            rehearsed=guards.rehearsed,
            neighbours=guards.neighbours,
            controls=guards.controls,
            texts=guards.texts,
        )
        if message.HasField("guards")
        else None,
        predictor=tuple(message.predictor) or None,
        gated=message.gated,
    )


def encode_step(step: Step) -> pb.Step:
    return pb.Step(
        learning_rate=step.learning_rate,
        loss=step.loss,
        probability=step.probability,
        rehearsed_fact_ids=step.rehearsed_fact_ids,
        gradient_norm=step.gradient_norm,
        answer_tokens=step.answer_tokens,
        candidates=step.candidates,
    )


def decode_step(message: pb.Step) -> Step:
    return Step(
        learning_rate=message.learning_rate,
        loss=message.loss,
        probability=message.probability,
        rehearsed_fact_ids=tuple(message.rehearsed_fact_ids),
        gradient_norm=message.gradient_norm,
        answer_tokens=message.answer_tokens,
        candidates=message.candidates,
    )


def encode_answer(answer: Answer) -> pb.Answer:
    return pb.Answer(
        text=answer.text,
        correct=answer.correct,
        log_probability=answer.log_probability,
        samples=answer.samples,
        correct_samples=answer.correct_samples,
    )


def decode_answer(message: pb.Answer) -> Answer:
    return Answer(
        text=message.text,
        correct=message.correct,
        log_probability=message.log_probability,
        samples=message.samples,
        correct_samples=message.correct_samples,
    )


def encode_opening(opening: Opening) -> pb.Opening:
    return pb.Opening(
        before=encode_answer(opening.before),
        curve=(pb.RatePoint(**asdict(point)) for point in opening.curve),
        base_answer=opening.base_answer,
    )


def decode_opening(message: pb.Opening) -> Opening:
    return Opening(
        before=decode_answer(message.before),
        curve=tuple(RatePoint(p.learning_rate, p.probability) for p in message.curve),
        base_answer=message.base_answer if message.HasField("base_answer") else None,
    )


def encode_outcome(outcome: Outcome) -> pb.Outcome:
    return pb.Outcome(
        verdict=outcome.verdict,
        reason=outcome.reason,
        steps=map(encode_step, outcome.steps),
        before=encode_answer(outcome.before),
        after=encode_answer(outcome.after),
        transfer=map(encode_answer, outcome.transfer),
        forgetting=map(encode_answer, outcome.forgetting),
        digest_before=outcome.digest_before,
        digest_after=outcome.digest_after,
        algorithm=outcome.algorithm,
        curve=(pb.RatePoint(**asdict(point)) for point in outcome.curve),
        base_answer=outcome.base_answer,
        leak=outcome.leak,
        drift=outcome.drift,
        general_text=outcome.general_text,
    )


def decode_outcome(message: pb.Outcome) -> Outcome:
    return Outcome(
        verdict=message.verdict,
        reason=message.reason,
        steps=tuple(map(decode_step, message.steps)),
        before=decode_answer(message.before),
        after=decode_answer(message.after),
        transfer=tuple(map(decode_answer, message.transfer)),
        forgetting=tuple(map(decode_answer, message.forgetting)),
        digest_before=message.digest_before,
        digest_after=message.digest_after,
        algorithm=message.algorithm,
        curve=tuple(RatePoint(p.learning_rate, p.probability) for p in message.curve),
        base_answer=message.base_answer if message.HasField("base_answer") else None,
        leak=message.leak if message.HasField("leak") else None,
        drift=message.drift if message.HasField("drift") else None,
        general_text=message.general_text,
    )


def encode_description(description: LearnerDescription) -> pb.DescribeResponse:
    return pb.DescribeResponse(
        device=description.device,
        parameters=description.parameters,
        model_version=description.model_version,
        base_digest=description.base_digest,
        tokenizer=description.tokenizer,
        max_tokens=description.max_tokens,
        environment=description.environment,
        algorithm=description.algorithm,
    )


def decode_description(message: pb.DescribeResponse) -> LearnerDescription:
    return LearnerDescription(
        device=message.device,
        parameters=message.parameters,
        model_version=message.model_version,
        base_digest=message.base_digest,
        tokenizer=message.tokenizer,
        max_tokens=message.max_tokens,
        environment=dict(message.environment),
        algorithm=message.algorithm,
    )


def encode_replayed(row: ReplayedUpdate, accept_drift: bool) -> pb.ReplayRequest:
    update = row.update
    return pb.ReplayRequest(
        model_version=update.model_version,
        parent_version=update.parent_version,
        example=encode_example(row.example),
        steps=map(encode_step, update.steps),
        rehearsed=map(encode_example, row.rehearsed),
        digest_after=update.digest_after,
        algorithm=update.algorithm,
        environment=update.environment,
        accept_drift=accept_drift,
        policy=encode_policy(update.policy) if update.policy else None,
    )


def decode_replayed(message: pb.ReplayRequest) -> ReplayedUpdate:
    """Only what replaying needs: the rest of the row stays with the server."""
    update = Update(
        model_version=message.model_version,
        parent_version=message.parent_version,
        fact_id=message.example.fact_id,
        policy=decode_policy(message.policy) if message.HasField("policy") else None,
        steps=tuple(map(decode_step, message.steps)),
        digest_before="",
        digest_after=message.digest_after,
        algorithm=message.algorithm,
        environment=dict(message.environment),
        seconds=0.0,
        applied_at=datetime.min.replace(tzinfo=UTC),
    )
    return ReplayedUpdate(
        update=update,
        example=decode_example(message.example),
        rehearsed=tuple(map(decode_example, message.rehearsed)),
    )
