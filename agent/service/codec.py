"""Records to and from the public messages."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from agent.learning import rates
from agent.learning.limits import TeachingLimits
from continual.v1 import memory_pb2 as pb
from continual.v1 import model_pb2
from memory_store.vocabulary import (
    Accepted,
    Event,
    EventKind,
    Fact,
    FactRetention,
    FactState,
    Learning,
    LedgerKind,
    Operation,
    OperationKind,
    OperationState,
    Policy,
    Probe,
    ProbeKind,
    RatePoint,
    Retention,
    RetentionPoint,
    Step,
    Update,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STATE_TO_PB = {state: pb.FactState.Value(f"FACT_STATE_{state.name}") for state in FactState}
STATE_FROM_PB = {number: state for state, number in STATE_TO_PB.items()}
EVENT_TO_PB = {kind: pb.EventKind.Value(f"EVENT_KIND_{kind.name}") for kind in EventKind}
EVENT_FROM_PB = {number: kind for kind, number in EVENT_TO_PB.items()}
PROBE_TO_PB = {kind: pb.ProbeKind.Value(f"PROBE_KIND_{kind.name}") for kind in ProbeKind}
OPERATION_TO_PB = {
    kind: pb.OperationKind.Value(f"OPERATION_KIND_{kind.name}") for kind in OperationKind
}
OPERATION_STATE_TO_PB = {
    state: pb.OperationState.Value(f"OPERATION_STATE_{state.name}") for state in OperationState
}
PROBE_FROM_PB = {number: kind for kind, number in PROBE_TO_PB.items()}


def encode_time(moment: datetime) -> Timestamp:
    """A moment with a time zone, to the microsecond."""
    since = moment - EPOCH  # three times as fast as `FromDatetime`
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def decode_time(message: Timestamp) -> datetime:
    """In UTC."""
    return message.ToDatetime(tzinfo=UTC)


def encode_policy(policy: Policy) -> pb.LearningRatePolicy:
    """The `oneof` of the policy's name."""
    rate, steps = policy.learning_rate, policy.max_steps
    match policy.name:
        case rates.FIXED:
            fixed = pb.LearningRatePolicy.Fixed(learning_rate=rate, steps=steps)
            return pb.LearningRatePolicy(fixed=fixed)
        case rates.PAPER:
            paper = pb.LearningRatePolicy.Paper(learning_rate=rate, steps=steps)
            return pb.LearningRatePolicy(paper=paper)
        case rates.UNTIL_KNOWN:
            until_known = pb.LearningRatePolicy.UntilKnown(learning_rate=rate, max_steps=steps)
            return pb.LearningRatePolicy(until_known=until_known)
        case rates.PREDICTED:
            predicted = pb.LearningRatePolicy.Predicted(largest_learning_rate=rate, max_steps=steps)
            return pb.LearningRatePolicy(predicted=predicted)
    search = pb.LearningRatePolicy.Search(largest_learning_rate=rate, max_steps=steps)
    return pb.LearningRatePolicy(search=search)


def decode_policy(message: pb.LearningRatePolicy, default: Policy = rates.DEFAULT_POLICY) -> Policy:
    """Zeros become what memory.proto says, by the server's default policy; checks nothing."""
    if default.name not in rates.UNTIL_LEARNED:
        default = rates.DEFAULT_POLICY
    name, largest, steps = "", default.learning_rate, default.max_steps
    match message.WhichOneof("policy"):
        case "fixed":
            name, steps = rates.FIXED, message.fixed.steps or 1
            largest = message.fixed.learning_rate
        case "paper":
            name, steps = rates.PAPER, message.paper.steps or 1
            largest = message.paper.learning_rate
        case "until_known":
            name, steps = rates.UNTIL_KNOWN, message.until_known.max_steps or steps
            largest = message.until_known.learning_rate or largest
        case "predicted":
            name, steps = rates.PREDICTED, message.predicted.max_steps or steps
            largest = message.predicted.largest_learning_rate or largest
        case _:
            name, steps = rates.SEARCH, message.search.max_steps or steps
            largest = message.search.largest_learning_rate or largest
    return Policy(name=name, learning_rate=largest, max_steps=steps)


def encode_limits(limits: TeachingLimits) -> model_pb2.TeachingLimits:
    return model_pb2.TeachingLimits(
        policies=limits.policies,
        largest_learning_rate=limits.largest_learning_rate,
        most_steps=limits.most_steps,
        gated=limits.gated,
    )


def decode_limits(message: model_pb2.TeachingLimits) -> TeachingLimits:
    return TeachingLimits(
        policies=tuple(message.policies),
        largest_learning_rate=message.largest_learning_rate,
        most_steps=message.most_steps,
        gated=message.gated,
    )


def encode_learning(learning: Learning) -> pb.Learning:
    return pb.Learning(
        learning_rates=learning.learning_rates,
        probability_before=learning.probability_before,
        probability_after=learning.probability_after,
        answer_before=learning.answer_before,
        answer_after=learning.answer_after,
        model_version=learning.model_version,
        curve=(
            pb.RatePoint(learning_rate=point.learning_rate, probability=point.probability)
            for point in learning.curve
        ),
        base_answer=learning.base_answer,
        leak=learning.leak,
        drift=learning.drift,
    )


def decode_learning(message: pb.Learning) -> Learning:
    return Learning(
        learning_rates=tuple(message.learning_rates),
        probability_before=message.probability_before,
        probability_after=message.probability_after,
        answer_before=message.answer_before,
        answer_after=message.answer_after,
        model_version=message.model_version,
        curve=tuple(RatePoint(p.learning_rate, p.probability) for p in message.curve),
        base_answer=message.base_answer if message.HasField("base_answer") else None,
        leak=message.leak if message.HasField("leak") else None,
        drift=message.drift if message.HasField("drift") else None,
    )


def encode_fact(fact: Fact) -> pb.Fact:
    """All but the position, which page tokens carry."""
    return pb.Fact(
        id=fact.id,
        question=fact.question,
        answer=fact.answer,
        correlated_questions=fact.correlated_questions,
        learning_rate_policy=encode_policy(fact.policy) if fact.policy else None,
        state=STATE_TO_PB[fact.state],
        accept_time=encode_time(fact.accepted_at),
        update_time=encode_time(fact.updated_at),
        failed_attempts=fact.failed_attempts,
        reason=fact.reason,
        superseded_by=fact.superseded_by,
        learning=encode_learning(fact.learning) if fact.learning else None,
    )


def decode_fact(message: pb.Fact) -> Fact:
    """The position is not known to clients: 0."""
    return Fact(
        position=0,
        id=message.id,
        question=message.question,
        answer=message.answer,
        correlated_questions=tuple(message.correlated_questions),
        policy=decode_policy(message.learning_rate_policy)
        if message.HasField("learning_rate_policy")
        else None,
        state=STATE_FROM_PB[message.state],
        accepted_at=decode_time(message.accept_time),
        updated_at=decode_time(message.update_time),
        failed_attempts=message.failed_attempts,
        reason=message.reason,
        superseded_by=message.superseded_by,
        learning=decode_learning(message.learning) if message.HasField("learning") else None,
    )


def encode_accepted(accepted: Accepted) -> pb.TeachResponse:
    return pb.TeachResponse(
        fact=encode_fact(accepted.fact),
        created=accepted.created,
        event_sequence=accepted.event_sequence,
        repeated_request=accepted.repeated,
        replaces_fact_id=accepted.replaces,
    )


def decode_accepted(message: pb.TeachResponse) -> Accepted:
    return Accepted(
        fact=decode_fact(message.fact),
        created=message.created,
        event_sequence=message.event_sequence,
        repeated=message.repeated_request,
        replaces=message.replaces_fact_id,
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


def encode_update(update: Update) -> pb.Update:
    return pb.Update(
        model_version=update.model_version,
        parent_version=update.parent_version,
        kind=update.kind.value,
        fact_id=update.fact_id,
        steps=map(encode_step, update.steps),
        digest_before=update.digest_before,
        digest_after=update.digest_after,
        algorithm=update.algorithm,
        environment=update.environment,
        seconds=update.seconds,
        apply_time=encode_time(update.applied_at),
    )


def decode_update(message: pb.Update) -> Update:
    return Update(
        model_version=message.model_version,
        parent_version=message.parent_version,
        kind=LedgerKind(message.kind),
        fact_id=message.fact_id,
        steps=tuple(map(decode_step, message.steps)),
        digest_before=message.digest_before,
        digest_after=message.digest_after,
        algorithm=message.algorithm,
        environment=dict(message.environment),
        seconds=message.seconds,
        applied_at=decode_time(message.apply_time),
    )


def encode_probe(probe: Probe) -> pb.Probe:
    return pb.Probe(
        kind=PROBE_TO_PB[probe.kind],
        fact_id=probe.fact_id,
        question=probe.question,
        expected_answer=probe.expected_answer,
        answer=probe.answer,
        correct=probe.correct,
        log_probability=probe.log_probability,
        model_version=probe.model_version,
        cause_fact_id=probe.cause_fact_id,
        probe_time=encode_time(probe.probed_at),
        samples=probe.samples,
        correct_samples=probe.correct_samples,
    )


def decode_probe(message: pb.Probe) -> Probe:
    return Probe(
        kind=PROBE_FROM_PB[message.kind],
        fact_id=message.fact_id,
        question=message.question,
        expected_answer=message.expected_answer,
        answer=message.answer,
        correct=message.correct,
        log_probability=message.log_probability,
        model_version=message.model_version,
        cause_fact_id=message.cause_fact_id,
        probed_at=decode_time(message.probe_time),
        samples=message.samples,
        correct_samples=message.correct_samples,
    )


def encode_event(event: Event) -> pb.Event:
    return pb.Event(
        sequence=event.sequence,
        kind=EVENT_TO_PB[event.kind],
        time=encode_time(event.at),
        fact_id=event.fact_id,
        model_version=event.model_version,
        step=encode_step(event.step) if event.step else None,
        learning=encode_learning(event.learning) if event.learning else None,
        message=event.message,
        step_number=event.step_number,
    )


def decode_event(message: pb.Event) -> Event:
    return Event(
        sequence=message.sequence,
        kind=EVENT_FROM_PB[message.kind],
        at=decode_time(message.time),
        fact_id=message.fact_id,
        model_version=message.model_version,
        step=decode_step(message.step) if message.HasField("step") else None,
        learning=decode_learning(message.learning) if message.HasField("learning") else None,
        message=message.message,
        step_number=message.step_number,
    )


def encode_fact_retention(fact: FactRetention) -> model_pb2.FactRetention:
    return model_pb2.FactRetention(
        fact_id=fact.fact_id,
        age=fact.age,
        points=(
            model_pb2.RetentionPoint(
                model_version=point.model_version,
                probability=point.probability,
                time=encode_time(point.probed_at),
            )
            for point in fact.points
        ),
    )


def decode_fact_retention(message: model_pb2.FactRetention) -> FactRetention:
    return FactRetention(
        fact_id=message.fact_id,
        age=message.age,
        points=tuple(
            RetentionPoint(
                model_version=point.model_version,
                probability=point.probability,
                probed_at=decode_time(point.time),
            )
            for point in message.points
        ),
    )


def encode_age_retention(ages: Retention) -> model_pb2.AgeRetention:
    return model_pb2.AgeRetention(**asdict(ages))


def decode_age_retention(message: model_pb2.AgeRetention) -> Retention:
    return Retention(
        youngest=message.youngest, oldest=message.oldest, held=message.held, asked=message.asked
    )


def encode_operation(operation: Operation) -> pb.Operation:
    return pb.Operation(
        id=operation.id,
        kind=OPERATION_TO_PB[operation.kind],
        state=OPERATION_STATE_TO_PB[operation.state],
        fact_id=operation.fact_id,
        erase=operation.erase,
        to_version=operation.to_version,
        message=operation.message,
        proof_json="" if operation.proof is None else json.dumps(dict(operation.proof)),
        done_facts=operation.done,
        total_facts=operation.total,
        request_time=encode_time(operation.requested_at),
        finish_time=encode_time(operation.finished_at) if operation.finished_at else None,
    )
