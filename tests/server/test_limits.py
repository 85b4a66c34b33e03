"""M5: what the operator does not allow is refused by its field and its limit; nothing is stored."""

from __future__ import annotations

import grpc
import pytest

from agent.client.messages import STATUS
from agent.errors import InvalidFactError
from agent.teaching.limits import TeachingLimits
from agent.wire.error_details import decode_error
from agent.wire.validation import FactRules
from continual.v1 import memory_pb2 as pb
from continual.v1 import model_pb2
from memory_store.vocabulary import Policy
from tests.server.serving import MAX_TOKENS, Serving, byte_tokenizer

LIMITS = TeachingLimits(
    policies=("search", "fixed", "until-known"), largest_learning_rate=1e-3, most_steps=10
)
# The server's own policy keeps them.
OWN = Policy(name="until-known", learning_rate=1e-3, max_steps=10)
RULES = FactRules(byte_tokenizer(), MAX_TOKENS, OWN, LIMITS)
LP = pb.LearningRatePolicy


def request(policy: LP | None) -> pb.TeachRequest:
    return pb.TeachRequest(question="Sky?", answer="Piano", learning_rate_policy=policy)


FORBIDDEN = {
    "policy": (
        LP(paper=LP.Paper(learning_rate=1e-5)),
        ["learning_rate_policy"],
        "this server does not allow the policy 'paper': use one of search, fixed, until-known",
    ),
    "rate": (
        LP(fixed=LP.Fixed(learning_rate=0.1)),
        ["learning_rate_policy.fixed.learning_rate"],
        "0.1 is more than this server allows: at most 0.001",
    ),
    "largest rate": (
        LP(search=LP.Search(largest_learning_rate=2e-3)),
        ["learning_rate_policy.search.largest_learning_rate"],
        "0.002 is more than this server allows: at most 0.001",
    ),
    "steps": (
        LP(fixed=LP.Fixed(learning_rate=1e-5, steps=11)),
        ["learning_rate_policy.fixed.steps"],
        "11 is more than this server allows: at most 10",
    ),
    "both": (
        LP(until_known=LP.UntilKnown(learning_rate=2e-3, max_steps=11)),
        [
            "learning_rate_policy.until_known.learning_rate",
            "learning_rate_policy.until_known.max_steps",
        ],
        "at most 0.001; learning_rate_policy.until_known.max_steps: 11 is more",
    ),
}


@pytest.mark.parametrize(("policy", "fields", "why"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_is_not_allowed_is_refused_by_its_field(policy: LP, fields: list[str], why: str):
    with pytest.raises(InvalidFactError) as caught:
        RULES.new_fact(request(policy))
    assert [field for field, _ in caught.value.violations] == fields
    assert why in str(caught.value)


def test_the_limits_themselves_are_allowed():
    new = RULES.new_fact(request(LP(fixed=LP.Fixed(learning_rate=1e-3, steps=10))))
    assert new.policy == Policy(name="fixed", learning_rate=1e-3, max_steps=10)
    assert RULES.new_fact(request(None)).policy is None


def test_what_is_left_to_the_server_stays_within_its_limits():
    # `fixed` completes nothing, so that the numbers come from the built-in default: 1e-4, 24 steps.
    own = Policy(name="fixed", learning_rate=1e-5, max_steps=1)
    limits = TeachingLimits(largest_learning_rate=1e-5, most_steps=10)
    rules = FactRules(byte_tokenizer(), MAX_TOKENS, own, limits)
    new = rules.new_fact(request(LP(search=LP.Search())))
    assert new.policy == Policy(name="search", learning_rate=1e-5, max_steps=10)


DESTRUCTIVE = request(LP(fixed=LP.Fixed(learning_rate=0.1)))
FIELD = "learning_rate_policy.fixed.learning_rate"
LIMIT = "0.1 is more than this server allows: at most 0.005"


async def test_teach_refuses_it(served: Serving) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.memory.Teach(DESTRUCTIVE)
    refusal = decode_error(caught.value)
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations == ((FIELD, LIMIT),)
    assert served.stored_questions() == []


async def test_a_batch_refuses_it_and_takes_the_others(served: Serving) -> None:
    good = pb.TeachRequest(question="Sea?", answer="Tuba")
    answer = await served.memory.TeachBatch(pb.TeachBatchRequest(facts=[DESTRUCTIVE, good]))
    assert [result.status for result in answer.results] == [
        pb.TEACH_STATUS_REFUSED,
        pb.TEACH_STATUS_ACCEPTED,
    ]
    assert answer.results[0].rejection.field == FIELD
    assert LIMIT in answer.results[0].rejection.message
    assert served.stored_questions() == ["Sea?"]


async def test_a_stream_refuses_it_and_goes_on(served: Serving) -> None:
    good = pb.TeachRequest(question="Sea?", answer="Tuba")
    requests = [pb.TeachStreamRequest(teach=teach) for teach in (DESTRUCTIVE, good)]
    refused, taken = [answer async for answer in served.memory.TeachStream(requests)]
    assert refused.rejected.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert refused.rejected.field == FIELD
    assert taken.accepted.created
    assert served.stored_questions() == ["Sea?"]


async def test_the_status_tells_the_limits(served: Serving) -> None:
    response = await served.model.GetStatus(model_pb2.GetStatusRequest())
    status = STATUS.decode(response)
    assert status.teaching_limits == served.limits
    assert STATUS.encode(status) == response
    response.ClearField("teaching_limits")  # a server from before there were any
    assert STATUS.decode(response).teaching_limits is None
