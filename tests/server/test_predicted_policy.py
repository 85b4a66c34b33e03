"""The policy `predicted` on its way from a client to the learner."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.cli.policies import chosen_policy, given_policy
from agent.errors import InvalidFactError
from agent.teaching.rates import DEFAULT_POLICY, PREDICTED, SEARCH
from agent.wire import codec, learner_codec
from agent.wire.rules import check_rules
from continual.learner.v1 import learner_pb2
from continual.v1 import memory_pb2 as pb
from memory_store.vocabulary import Guards, Policy, Step

POLICY = Policy(name=PREDICTED, learning_rate=3e-4, max_steps=7)
STEP = Step(
    learning_rate=1e-4,
    loss=2.0,
    probability=0.5,
    gradient_norm=0.1 + 0.2,
    answer_tokens=4,
    candidates=16,
)


def message(largest: float = 0.0, max_steps: int = 0) -> pb.LearningRatePolicy:
    predicted = pb.LearningRatePolicy.Predicted(largest_learning_rate=largest, max_steps=max_steps)
    return pb.LearningRatePolicy(predicted=predicted)


def test_a_client_says_what_it_says_of_search() -> None:
    assert codec.encode_policy(POLICY) == message(3e-4, 7)
    assert codec.decode_policy(message(3e-4, 7)) == POLICY
    assert codec.decode_policy(message()) == replace(DEFAULT_POLICY, name=PREDICTED)


def test_a_server_whose_default_it_is_lends_its_numbers_to_others() -> None:
    search = pb.LearningRatePolicy(search=pb.LearningRatePolicy.Search())
    assert codec.decode_policy(search, POLICY) == replace(POLICY, name=SEARCH)
    assert codec.decode_policy(message(), POLICY) == POLICY


def test_the_predictor_is_for_the_learner_and_not_for_clients() -> None:
    policy = replace(POLICY, guards=Guards(texts=2), predictor=(0.1 + 0.2, 30.0, -4.0), gated=True)
    sent = learner_codec.POLICY.encode(policy).SerializeToString()
    assert learner_codec.POLICY.decode(learner_pb2.Policy.FromString(sent)) == policy
    assert learner_codec.POLICY.decode(learner_codec.POLICY.encode(POLICY)) == POLICY
    assert codec.decode_policy(codec.encode_policy(policy)) == POLICY


def test_what_a_step_was_known_by_is_told_to_both() -> None:
    assert codec.STEP.decode(codec.STEP.encode(STEP)) == STEP
    response = learner_pb2.LearnResponse(step=codec.STEP.encode(STEP))
    assert codec.STEP.decode(response.step) == STEP


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (message(1.0), "learning_rate_policy.predicted.largest_learning_rate"),
        (message(0.0, 1001), "learning_rate_policy.predicted.max_steps"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(policy: pb.LearningRatePolicy, field: str) -> None:
    request = pb.TeachRequest(question="Sky?", answer="Piano", learning_rate_policy=policy)
    with pytest.raises(InvalidFactError) as caught:
        check_rules(request)
    assert caught.value.field == field


def test_the_command_line_knows_it() -> None:
    assert chosen_policy(PREDICTED, 3e-4, 7) == POLICY
    # Zeros leave it to the server.
    assert given_policy(PREDICTED, None, None) == replace(POLICY, learning_rate=0.0, max_steps=0)
