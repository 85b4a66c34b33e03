"""What programs are told of an error, and what they read of it again."""

from __future__ import annotations

import logging

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from agent.client.client import Client
from agent.client.types import Rejected, Taught
from agent.wire.error_details import (
    DOMAIN,
    Refusal,
    RequestError,
    decode_error,
    decode_rejection,
    encode_rejection,
    encode_status,
)
from continual.v1 import memory_pb2 as pb
from continual.v1 import model_pb2
from memory_store.store import MemoryStore
from memory_store.vocabulary import NewFact
from tests.cli.conftest import in_thread
from tests.server.serving import LEARNER_GONE, Serving
from tests.server.test_memory_service import refused, teach

FULL = Refusal(
    code=grpc.StatusCode.RESOURCE_EXHAUSTED,
    message="full",
    reason="QUEUE_FULL",
    violations=(("answer", "is bad"), ("question", "is worse")),
    retry_seconds=1.5,
    reference="abc",
)


class Ended(grpc.RpcError):
    """A call that was ended with a status."""

    def __init__(self, status: grpc.Status) -> None:
        self._status = status

    def code(self) -> grpc.StatusCode:
        return self._status.code

    def details(self) -> str:
        return self._status.details

    def trailing_metadata(self):
        return self._status.trailing_metadata


def test_details_survive_the_wire() -> None:
    assert decode_error(Ended(encode_status(FULL))) == FULL


def test_the_reason_is_of_our_domain() -> None:
    [(_, wire)] = encode_status(FULL).trailing_metadata
    info = ErrorInfo()
    assert Status.FromString(wire).details[0].Unpack(info)
    assert (info.domain, info.reason) == (DOMAIN, "QUEUE_FULL")


def test_details_stay_below_what_metadata_may_hold() -> None:
    many = tuple((f"correlated_questions[{n}]", "x" * 100) for n in range(33))
    status = encode_status(Refusal(code=FULL.code, message="m", violations=many))
    assert len(status.trailing_metadata[0][1]) < 8192 - 2048


def test_a_fact_of_several_is_told_the_same() -> None:
    told = decode_rejection(encode_rejection(FULL))
    assert (told.code, told.message, told.reason) == (FULL.code, "full", "QUEUE_FULL")
    assert told.retry_seconds == 1.5
    assert told.violations[0][0] == "answer"


async def test_every_field_that_breaks_a_rule_is_named(served: Serving) -> None:
    error = await refused(served.memory.Teach(teach("", "a\tb", fact_id="The Sky")))
    told = decode_error(error)
    assert told.reason == "INVALID_FIELD"
    assert [field for field, _ in told.violations] == ["question", "answer", "fact_id"]
    assert told.retry_seconds is None


async def test_the_rules_hold_for_every_service(served: Serving) -> None:
    call = served.model.Ask(model_pb2.AskRequest(question=" ", max_new_tokens=513))
    told = decode_error(await refused(call.read()))
    assert [field for field, _ in told.violations] == ["question", "max_new_tokens"]
    told = decode_error(await refused(served.memory.Explain(pb.ExplainRequest())))
    assert [field for field, _ in told.violations] == ["question"]


async def test_what_passes_by_itself_says_when_to_try_again(served: Serving) -> None:
    assert served.view.learner is not None
    served.view.learner.error = LEARNER_GONE
    request = model_pb2.ScoreRequest(question="Sky?", answer="Piano")
    told = decode_error(await refused(served.model.Score(request)))
    assert (told.code, told.reason) == (grpc.StatusCode.ABORTED, "LEARNER_DIED")
    assert told.retry_seconds == 1.0


async def test_an_unexpected_error_has_a_reference_into_the_log(
    served: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(MemoryStore, "teach_many", broken)
    with caplog.at_level(logging.ERROR):
        error = await refused(served.memory.Teach(teach("Sky?")))
    told = decode_error(error)
    assert told.reference
    assert told.reference in caplog.text
    assert "secret" in caplog.text
    assert "secret" not in str(error.trailing_metadata())


def test_the_client_raises_what_it_was_told(tmp_path) -> None:
    with in_thread(tmp_path) as server, Client(server.address) as client:
        with pytest.raises(RequestError) as caught:
            client.teach("", "a\tb")
        assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
        assert [field for field, _ in caught.value.violations] == ["question", "answer"]
        new = NewFact(question="Sky?", answer="Piano", request_id="r1")
        first = client.teach_fact(new)
        assert client.teach_fact(new).repeated
        results = client.teach_batch(
            [new, NewFact(question="sky?", answer="Piano"), NewFact(question="", answer="x")]
        )
        assert results[:2] == [
            Taught(fact_id=first.fact.id, created=True, repeated=True),
            Taught(fact_id=first.fact.id, created=False, repeated=False),
        ]
        assert isinstance(results[2], Rejected)
        assert (results[2].index, results[2].reason) == (2, "INVALID_FIELD")
        with pytest.raises(RequestError) as caught:
            client.fact("nobody")
        assert caught.value.reason == "NOT_FOUND"
