"""`MemoryService` over a real connection and a real store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import pytest

from agent.errors import LearnerUnavailableError
from agent.wire.validation import FactRules
from continual.v1 import memory_pb2 as pb
from memory_store.store import MemoryStore
from tests.server.serving import Serving, recovering
from tests.store.builders import new_fact, teach_learned

Code = grpc.StatusCode


def teach(question: str, answer: str = "Piano", **more: Any) -> pb.TeachRequest:
    return pb.TeachRequest(question=question, answer=answer, **more)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def stream(*requests: pb.TeachRequest) -> Iterable[pb.TeachStreamRequest]:
    return [pb.TeachStreamRequest(teach=request) for request in requests]


async def test_a_fact_is_on_disk_when_teach_answers(served: Serving) -> None:
    response = await served.memory.Teach(teach("Sky?"))
    assert served.stored_questions() == ["Sky?"]
    assert response.created
    assert response.fact.state == pb.FACT_STATE_QUEUED
    assert served.accepted == 1


async def test_teach_does_not_answer_before_the_commit(served: Serving) -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold(store: MemoryStore) -> None:
        held.set()
        assert go_on.wait(10)

    holder = asyncio.create_task(served.store.write(hold))
    await asyncio.to_thread(held.wait)
    call = served.memory.Teach(teach("Sky?"))
    _, pending = await asyncio.wait([asyncio.ensure_future(call)], timeout=0.2)
    assert pending
    assert served.stored_questions() == []
    go_on.set()
    await holder
    assert (await call).created
    assert served.stored_questions() == ["Sky?"]


async def test_the_same_fact_twice_is_one_fact(served: Serving) -> None:
    first = await served.memory.Teach(teach("Sky?"))
    again = await served.memory.Teach(teach(" sky? "))
    assert not again.created
    assert again.fact.id == first.fact.id
    assert served.stored_questions() == ["Sky?"]


async def test_a_request_id_teaches_once_and_says_one_thing_only(served: Serving) -> None:
    first = await served.memory.Teach(teach("Sky?", request_id="r1"))
    again = await served.memory.Teach(teach("Sky?", request_id="r1"))
    assert again == pb.TeachResponse(fact=first.fact, created=True, repeated_request=True)
    error = await refused(served.memory.Teach(teach("Sea?", request_id="r1")))
    assert error.code() == Code.ALREADY_EXISTS
    assert "'r1'" in (error.details() or "")
    assert served.stored_questions() == ["Sky?"]


async def test_a_fact_id_belongs_to_one_fact(served: Serving) -> None:
    response = await served.memory.Teach(teach("Sky?", fact_id="the-sky"))
    assert response.fact.id == "the-sky"
    error = await refused(served.memory.Teach(teach("Sea?", fact_id="the-sky")))
    assert error.code() == Code.ALREADY_EXISTS
    assert served.stored_questions() == ["Sky?"]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (teach(""), "question"),
        (teach("Sky?", ""), "answer"),
        (teach("Sky?", "two\nlines"), "answer"),
        (teach("x" * 4001), "question"),
        (teach("Sky?", fact_id="The Sky"), "fact_id"),
    ],
    ids=["no question", "no answer", "two lines", "overlong", "fact id"],
)
async def test_a_refused_fact_names_its_field_and_stores_nothing(
    served: Serving, request_: pb.TeachRequest, field: str
) -> None:
    error = await refused(served.memory.Teach(request_))
    assert error.code() == Code.INVALID_ARGUMENT
    assert (error.details() or "").startswith(f"{field}: ")
    assert served.stored_questions() == []
    assert served.accepted == 0


async def test_teach_does_not_wait_for_the_first_model(served: Serving) -> None:
    served.rules = FactRules(None)
    await served.memory.Teach(teach("x" * 900))
    assert served.stored_questions() == ["x" * 900]  # the learner judges its tokens
    error = await refused(served.memory.Teach(teach("Sky?", "two\nlines")))
    assert error.code() == Code.INVALID_ARGUMENT


async def test_teach_may_have_to_wait_for_the_model(served: Serving) -> None:
    served.rules_error = LearnerUnavailableError("another model's: try again in a moment")
    error = await refused(served.memory.Teach(teach("Sky?")))
    assert error.code() == Code.UNAVAILABLE
    assert "try again" in (error.details() or "")
    assert served.stored_questions() == []


async def test_teach_works_while_the_learner_recovers(served: Serving) -> None:
    recovering(served)
    assert (await served.memory.Teach(teach("Sky?"))).created


async def test_an_unexpected_error_is_internal_and_keeps_its_text(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(MemoryStore, "teach_many", broken)
    error = await refused(served.memory.Teach(teach("Sky?")))
    assert error.code() == Code.INTERNAL
    assert "reference" in (error.details() or "")
    assert "secret" not in (error.details() or "")


async def test_a_stream_answers_in_order_with_rejections_in_between(served: Serving) -> None:
    requests = stream(teach("Sky?"), teach(""), teach("Sea?"), teach("Sky?"), teach("Gem?", "a\tb"))
    answers = [answer async for answer in served.memory.TeachStream(requests)]
    assert [answer.index for answer in answers] == [0, 1, 2, 3, 4]
    kinds = [answer.WhichOneof("result") for answer in answers]
    assert kinds == ["accepted", "rejected", "accepted", "accepted", "rejected"]
    assert answers[1].rejected.code == Code.INVALID_ARGUMENT.value[0]
    assert answers[1].rejected.message == "question: must not be empty"
    assert answers[3].accepted.fact.id == answers[0].accepted.fact.id
    assert served.stored_questions() == ["Sky?", "Sea?"]


async def test_a_stream_longer_than_its_window_is_taught_whole(served: Serving) -> None:
    questions = [f"Question {number}?" for number in range(700)]
    requests = stream(*map(teach, questions))
    answers = [answer async for answer in served.memory.TeachStream(requests)]
    assert [answer.index for answer in answers] == list(range(700))
    assert [answer.accepted.fact.question for answer in answers] == questions
    assert sorted(served.stored_questions()) == sorted(questions)


async def test_an_empty_stream_ends(served: Serving) -> None:
    assert [answer async for answer in served.memory.TeachStream(stream())] == []


async def test_a_stream_that_its_client_leaves_ends_on_the_server(served: Serving) -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold(store: MemoryStore) -> None:
        held.set()
        assert go_on.wait(10)

    holder = asyncio.create_task(served.store.write(hold))
    await asyncio.to_thread(held.wait)
    sent = 0

    async def endless() -> AsyncIterator[pb.TeachStreamRequest]:
        nonlocal sent
        while True:
            yield pb.TeachStreamRequest(teach=teach(f"Question {sent}?"))
            sent += 1

    # Nothing is committed, so the server reads until its window is full.
    call = served.memory.TeachStream(endless())
    reading = asyncio.ensure_future(call.read())
    async with asyncio.timeout(10):
        while sent < 400:
            await asyncio.sleep(0.01)
    call.cancel()
    go_on.set()
    await holder
    await asyncio.wait([reading])
    async with asyncio.timeout(10):
        while _tasks_of_a_stream():
            await asyncio.sleep(0.01)


def _tasks_of_a_stream() -> list[str]:
    names = [getattr(t.get_coro(), "__qualname__", "") for t in asyncio.all_tasks()]
    return [name for name in names if "teach" in name.lower() or name == "Queue.put"]


async def test_pages_of_a_state_are_whole_and_without_repetition(served: Serving) -> None:
    await served.store.write(lambda store: [teach_learned(store, f"Old {n}?") for n in range(5)])
    await served.store.write(lambda store: [store.teach(new_fact(f"New {n}?")) for n in range(4)])
    for states, expected in (
        ([pb.FACT_STATE_LEARNED], [f"Old {n}?" for n in range(5)]),
        ([pb.FACT_STATE_QUEUED], [f"New {n}?" for n in range(4)]),
        ([pb.FACT_STATE_RESISTED], []),
        ([], [f"Old {n}?" for n in range(5)] + [f"New {n}?" for n in range(4)]),
    ):
        found, sizes, token = [], [], ""
        while True:
            request = pb.ListFactsRequest(page_size=2, page_token=token, states=states)
            page = await served.memory.ListFacts(request)
            found += [fact.question for fact in page.facts]
            sizes.append(len(page.facts))
            token = page.next_page_token
            if not token:
                break
        assert found == expected
        assert max(sizes) <= 2


async def test_a_page_has_a_default_size_and_a_largest(served: Serving) -> None:
    await served.store.write(
        lambda store: [store.teach(new_fact(f"Question {n}?")) for n in range(1001)]
    )
    for asked, got in ((0, 50), (1000, 1000), (5000, 1000)):
        page = await served.memory.ListFacts(pb.ListFactsRequest(page_size=asked))
        assert len(page.facts) == got
        assert page.next_page_token


async def test_a_token_from_elsewhere_is_refused(served: Serving) -> None:
    await served.store.write(lambda store: [store.teach(new_fact(f"Q{n}?")) for n in range(3)])
    page = await served.memory.ListFacts(pb.ListFactsRequest(page_size=1))
    token = page.next_page_token
    other_list = pb.ListFactsRequest(page_token=token, states=[pb.FACT_STATE_QUEUED])
    elsewhere = pb.ListFactsRequest(page_token="A" * len(token))
    for request in (other_list, elsewhere, pb.ListFactsRequest(page_token="?")):
        error = await refused(served.memory.ListFacts(request))
        assert error.code() == Code.INVALID_ARGUMENT
        assert "page token" in (error.details() or "")


async def test_a_negative_page_size_and_an_unknown_state_are_refused(served: Serving) -> None:
    for request, field in (
        (pb.ListFactsRequest(page_size=-1), "page_size"),
        (pb.ListFactsRequest(states=[1, 0]), "states[1]"),  # type: ignore[list-item] # on purpose
        (pb.ListFactsRequest(states=[99]), "states[0]"),  # type: ignore[list-item] # on purpose
    ):
        error = await refused(served.memory.ListFacts(request))
        assert error.code() == Code.INVALID_ARGUMENT
        assert (error.details() or "").startswith(f"{field}: ")


async def test_a_fact_comes_with_its_updates(served: Serving) -> None:
    fact = await served.store.write(lambda store: teach_learned(store, "Sky?", "Piano"))
    response = await served.memory.GetFact(pb.GetFactRequest(fact_id=fact.id))
    assert response.fact.state == pb.FACT_STATE_LEARNED
    assert [update.model_version for update in response.updates] == [1]


async def test_a_fact_that_is_not_there_is_not_found(served: Serving) -> None:
    for fact_id in ("nobody", ""):
        error = await refused(served.memory.GetFact(pb.GetFactRequest(fact_id=fact_id)))
        assert error.code() == Code.NOT_FOUND


async def test_a_watch_resumes_where_the_last_one_ended(served: Serving) -> None:
    for question in ("Sky?", "Sea?"):
        await served.memory.Teach(teach(question))
    first = served.memory.WatchEvents(pb.WatchEventsRequest(after_sequence=0))
    seen = (await first.read()).event.sequence
    first.cancel()
    second = served.memory.WatchEvents(pb.WatchEventsRequest(after_sequence=seen))
    assert (await second.read()).event.sequence == seen + 1
    coming = asyncio.ensure_future(second.read())
    response = await served.memory.Teach(teach("Gem?"))
    event = (await asyncio.wait_for(coming, 10)).event
    assert (event.sequence, event.fact_id) == (response.event_sequence + 1, response.fact.id)
    second.cancel()


async def test_a_watch_that_begins_at_the_event_sequence_of_teach_misses_nothing(
    served: Serving,
) -> None:
    response = await served.memory.Teach(teach("Sky?"))
    request = pb.WatchEventsRequest(
        after_sequence=response.event_sequence, fact_ids=[response.fact.id]
    )
    call = served.memory.WatchEvents(request)
    assert (await call.read()).event.kind == pb.EVENT_KIND_ACCEPTED
    call.cancel()
