"""Records and their messages in `continual.v1`: a pair for each, with what differs."""

from __future__ import annotations

import json

from agent.teaching import rates
from agent.teaching.limits import TeachingLimits
from agent.wire.mapper import NotSent, Pair, Special, pair
from agent.wire.mapper import encode_time as encode_time
from continual.v1 import admin_pb2, model_pb2
from continual.v1 import memory_pb2 as pb
from memory_store.vocabulary import (
    Accepted,
    Compaction,
    Event,
    Fact,
    FactRetention,
    FactState,
    LearnerState,
    Learning,
    Operation,
    Policy,
    Probe,
    Retention,
    RetentionPoint,
    Step,
    Update,
)

STATE_TO_PB = {state: pb.FactState.Value(f"FACT_STATE_{state.name}") for state in FactState}
STATE_FROM_PB = {number: state for state, number in STATE_TO_PB.items()}
LEARNER_TO_PB = {
    state: model_pb2.LearnerState.Value(f"LEARNER_STATE_{state.name}") for state in LearnerState
}


def encode_policy(policy: Policy) -> pb.LearningRatePolicy:
    """Makes the message of a policy. Guards and predictor are not sent."""
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
    """Reads a policy. Zeros become the defaults of memory.proto, taken from `default`."""
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


# Guards and predictor stay on the server.
POLICY = Pair(Policy, pb.LearningRatePolicy, encode_policy, decode_policy)
STEP = pair(Step, pb.Step)
LEARNING = pair(Learning, pb.Learning)
FACT = pair(
    Fact,
    pb.Fact,
    {
        "position": NotSent(0),  # page tokens carry it
        "policy": "learning_rate_policy",
        "accepted_at": "accept_time",
        "updated_at": "update_time",
        "tried_policy": NotSent(None),
    },
    parts=[POLICY, LEARNING],
)
ACCEPTED = pair(
    Accepted,
    pb.TeachResponse,
    {"repeated": "repeated_request", "replaces": "replaces_fact_id"},
    parts=[FACT],
)
UPDATE = pair(
    Update, pb.Update, {"policy": NotSent(None), "applied_at": "apply_time"}, parts=[STEP]
)
PROBE = pair(Probe, pb.Probe, {"probed_at": "probe_time"})
EVENT = pair(Event, pb.Event, {"at": "time"}, parts=[STEP, LEARNING])
RETENTION_POINT = pair(RetentionPoint, model_pb2.RetentionPoint, {"probed_at": "time"})
FACT_RETENTION = pair(FactRetention, model_pb2.FactRetention, parts=[RETENTION_POINT])
AGE_RETENTION = pair(Retention, model_pb2.AgeRetention)
LIMITS = pair(TeachingLimits, model_pb2.TeachingLimits)
COMPACTION = pair(Compaction, admin_pb2.CompactResponse)

# Clients decode the message to `agent.client.types.OperationStatus`.
encode_operation = pair(
    Operation,
    pb.Operation,
    {
        "proof": Special(
            "proof_json",
            encode=lambda proof: "" if proof is None else json.dumps(dict(proof)),
            decode=lambda text: json.loads(text) if text else None,
        ),
        "done": "done_facts",
        "total": "total_facts",
        "requested_at": "request_time",
        "finished_at": "finish_time",
        **dict.fromkeys(
            (
                "branch_version",
                "position",
                "after_event",
                "base_version",
                "first_position",
                "first_review",
                "never_saw",
            ),
            NotSent(),
        ),
    },
).encode
