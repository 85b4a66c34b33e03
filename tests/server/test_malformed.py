"""Bytes that are no valid request, over a real connection."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from continual.v1 import memory_pb2 as pb
from tests.server.serving import Serving

MEMORY = "/continual.v1.MemoryService/"
MODEL = "/continual.v1.ModelService/"


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field on the wire."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


BROKEN = b"caf\xe9"  # Latin-1
NOT_UTF8 = {
    "question": (MEMORY + "Teach", field(1, BROKEN) + field(2, b"Piano"), "question"),
    "answer": (MEMORY + "Teach", field(1, b"Sky?") + field(2, BROKEN), "answer"),
    "second correlated question": (
        MEMORY + "Teach",
        field(1, b"Sky?") + field(2, b"Piano") + field(3, b"Heaven?") + field(3, BROKEN),
        "correlated_questions[1]",
    ),
    "request id": (MEMORY + "Teach", field(1, b"S?") + field(5, BROKEN), "request_id"),
    "fact id": (MEMORY + "GetFact", field(1, BROKEN), "fact_id"),
    "page token": (MEMORY + "ListFacts", field(2, BROKEN), "page_token"),
    "scored question": (MODEL + "Score", field(1, BROKEN) + field(2, b"Piano"), "question"),
}


async def refusal(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    return caught.value


@pytest.mark.parametrize(("method", "wire", "name"), NOT_UTF8.values(), ids=NOT_UTF8)
async def test_text_that_is_not_utf8_is_refused_by_the_name_of_its_field(
    served: Serving, method: str, wire: bytes, name: str
) -> None:
    error = await refusal(served.channel.unary_unary(method)(wire))
    assert error.details() == f"{name}: must be UTF-8"
    assert served.stored_questions() == []


async def test_so_is_the_question_of_a_streamed_answer(served: Serving) -> None:
    call = served.channel.unary_stream(MODEL + "Ask")(field(1, BROKEN))
    error = await refusal(call.read())
    assert error.details() == "question: must be UTF-8"


@pytest.mark.parametrize("wire", [b"\xff" * 8, field(1, b"Sky?")[:-1], b"\x0a"])
async def test_garbage_is_refused(served: Serving, wire: bytes) -> None:
    error = await refusal(served.channel.unary_unary(MEMORY + "Teach")(wire))
    assert error.details() == "request: not a valid protobuf message"
    assert served.stored_questions() == []


async def test_a_broken_message_ends_a_stream_after_the_answers_before_it(
    served: Serving,
) -> None:
    good = pb.TeachRequest(question="Sky?", answer="Piano")

    async def requests() -> AsyncIterator[bytes]:
        yield pb.TeachStreamRequest(teach=good).SerializeToString()
        yield field(1, field(1, BROKEN) + field(2, b"Piano"))

    call = served.channel.stream_stream(MEMORY + "TeachStream")(requests())
    answer = pb.TeachStreamResponse.FromString(await call.read())
    assert answer.accepted.fact.question == "Sky?"
    error = await refusal(call.read())
    assert error.details() == "teach.question: must be UTF-8"
    assert served.stored_questions() == ["Sky?"]


async def test_the_server_goes_on_after_garbage(served: Serving) -> None:
    await refusal(served.channel.unary_unary(MEMORY + "Teach")(b"\xff"))
    response = await served.memory.Teach(pb.TeachRequest(question="Sky?", answer="Piano"))
    assert response.created


async def test_an_oversized_request_is_refused_and_stores_nothing(served: Serving) -> None:
    request = pb.TeachRequest(question="x" * 2_000_000, answer="Piano")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.memory.Teach(request)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert served.stored_questions() == []
