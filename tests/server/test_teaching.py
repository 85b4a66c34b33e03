"""Batches, deadlines, repeated requests and full queues, over a real connection."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.server.api import memory_servicer
from agent.server.api.memory_servicer import STREAM_WINDOW, MemoryServicer
from agent.wire.error_details import decode_error
from continual.v1 import memory_pb2 as pb
from memory_store.errors import StoreUnusableError
from memory_store.facts import count_by_state
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState
from tests.server.serving import Serving, serving
from tests.server.test_memory_service import refused, stream, teach

Code = grpc.StatusCode
ACCEPTED, DUPLICATE, REFUSED = (
    pb.TEACH_STATUS_ACCEPTED,
    pb.TEACH_STATUS_DUPLICATE,
    pb.TEACH_STATUS_REFUSED,
)


async def batch(served: Serving, *facts: pb.TeachRequest) -> list[pb.TeachResult]:
    response = await served.memory.TeachBatch(pb.TeachBatchRequest(facts=facts))
    return list(response.results)


async def test_each_fact_of_a_batch_has_its_own_result(served: Serving) -> None:
    known_id = str(uuid.uuid4())
    await served.memory.Teach(teach("Sky?", request_id=known_id))
    results = await batch(
        served,
        teach("Sea?"),
        teach(" sky? "),
        teach(""),
        teach("Gem?", "two\nlines"),
        teach("sea?"),
        teach("Sky?", request_id=known_id),
        teach("Fog?", request_id=known_id),
        teach("Elf?", fact_id="the-elf"),
    )
    statuses = [result.status for result in results]
    assert statuses == [
        *(ACCEPTED, DUPLICATE, REFUSED, REFUSED, DUPLICATE, ACCEPTED, REFUSED, ACCEPTED),
    ]
    assert results[4].fact_id == results[0].fact_id
    assert results[5].repeated_request
    assert results[7].fact_id == "the-elf"
    assert [(r.rejection.code, r.rejection.field) for r in (results[2], results[3])] == [
        (Code.INVALID_ARGUMENT.value[0], "question"),
        (Code.INVALID_ARGUMENT.value[0], "answer"),
    ]
    assert results[6].rejection.reason == "REQUEST_ID_USED"
    assert not any(r.fact_id for r in results if r.status == REFUSED)
    assert served.stored_questions() == ["Sky?", "Sea?", "Elf?"]


async def test_a_batch_may_have_a_thousand_facts_and_no_more(served: Serving) -> None:
    facts = [teach(f"Question {number}?") for number in range(1001)]
    results = await batch(served, *facts[:1000])
    assert {result.status for result in results} == {ACCEPTED}
    assert served.stored_questions() == [fact.question for fact in facts[:1000]]
    for wrong in (facts, []):
        error = await refused(served.memory.TeachBatch(pb.TeachBatchRequest(facts=wrong)))
        assert error.code() == Code.INVALID_ARGUMENT
        assert "facts" in decode_error(error).violations[0]
    assert len(served.stored_questions()) == 1000


async def test_a_batch_is_on_disk_when_it_is_answered(served: Serving) -> None:
    async with served.writer_held():
        call = served.memory.TeachBatch(pb.TeachBatchRequest(facts=[teach("Sky?")]))
        error = await refused(
            served.memory.TeachBatch(pb.TeachBatchRequest(facts=[teach("Sea?")]), timeout=2)
        )
        assert error.code() == Code.DEADLINE_EXCEEDED
        assert served.stored_questions() == []
    assert [result.status for result in (await call).results] == [ACCEPTED]


async def test_a_batch_whose_commit_fails_tells_so_for_each(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreUnusableError("No space is left.")

    monkeypatch.setattr(MemoryStore, "teach_many", full)
    wrong, sound = await batch(served, teach(""), teach("Sky?"))
    assert wrong.rejection.code == Code.INVALID_ARGUMENT.value[0]
    assert sound.rejection.code == Code.UNAVAILABLE.value[0]
    assert sound.rejection.retry_delay.seconds > 0


async def test_a_deadline_leaves_the_fact_queued_and_the_same_request_tells(
    served: Serving,
) -> None:
    request = teach("Sky?", request_id=str(uuid.uuid4()))
    async with served.writer_held():
        error = await refused(served.memory.Teach(request, timeout=2))
        assert error.code() == Code.DEADLINE_EXCEEDED
    again = await served.memory.Teach(request)
    assert again.repeated_request
    assert again.created  # as the answer that was missed would have said
    assert again.fact.state == pb.FACT_STATE_QUEUED
    assert served.stored_questions() == ["Sky?"]
    reused = teach("Sea?", request_id=request.request_id)
    assert decode_error(await refused(served.memory.Teach(reused))).reason == "REQUEST_ID_USED"


async def test_a_full_queue_says_when_to_try_again_and_drops_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, max_queued=2) as served:
        for question in ("Sky?", "Sea?"):
            await served.memory.Teach(teach(question))
        told = decode_error(await refused(served.memory.Teach(teach("Gem?"))))
        assert (told.code, told.reason) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert told.retry_seconds
        [result] = await batch(served, teach("Gem?"))
        assert result.rejection.reason == "QUEUE_FULL"
        [answer] = [answer async for answer in served.memory.TeachStream(stream(teach("Gem?")))]
        assert answer.rejected.retry_delay.seconds > 0
        assert (await served.memory.Teach(teach("sky?"))).created is False  # it is held
        assert served.stored_questions() == ["Sky?", "Sea?"]
        await served.store.write(MemoryStore.claim)
        assert (await served.memory.Teach(teach("Gem?"))).created
        counts = await served.store.read(lambda store: count_by_state(store.connection))
        assert (counts[FactState.QUEUED], counts[FactState.LEARNING]) == (2, 1)


async def test_facts_on_their_way_to_the_disk_are_bounded(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_servicer, "MAX_PENDING", 3)
    async with served.writer_held():
        calls = [
            asyncio.ensure_future(served.memory.Teach(teach(f"Question {number}?")))
            for number in range(4)
        ]
        [over], _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert decode_error(await refused(over)).reason == "QUEUE_FULL"
    for call in calls:
        assert call is over or (await call).created
    # There is room again.
    assert (await served.memory.Teach(teach(f"Question {calls.index(over)}?"))).created


async def test_facts_of_callers_who_left_count_until_they_are_written(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_servicer, "MAX_PENDING", 3)
    async with served.writer_held():
        asked = [teach(f"Question {number}?") for number in range(3)]
        await asyncio.gather(*(refused(served.memory.Teach(one, timeout=2)) for one in asked))
        error = await refused(served.memory.Teach(teach("Question 3?")))
        assert decode_error(error).reason == "QUEUE_FULL"
    await served.store.write(lambda store: count_by_state(store.connection))  # after them
    assert (await served.memory.Teach(teach("Question 3?"))).created
    assert len(served.stored_questions()) == 4


async def test_a_stream_is_read_no_further_than_its_window(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0
    accept = MemoryServicer._accept

    def counted(servicer: MemoryServicer, request: pb.TeachRequest) -> Any:
        nonlocal taken
        taken += 1
        return accept(servicer, request)

    monkeypatch.setattr(MemoryServicer, "_accept", counted)
    facts = [teach(f"Question {number}?") for number in range(400)]
    async with served.writer_held():
        call = served.memory.TeachStream(stream(*facts))
        reading = asyncio.ensure_future(call.read())
        async with asyncio.timeout(10):
            while taken < STREAM_WINDOW:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        # One is being acknowledged, and one waits for room.
        assert taken <= STREAM_WINDOW + 2
    assert (await reading).index == 0
    assert [(await call.read()).index for _ in facts[1:]] == list(range(1, 400))
