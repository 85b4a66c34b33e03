"""`ModelService` over a real connection; the learner behind it is a stand-in."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import grpc
import pytest

from agent.client.messages import STATUS
from agent.errors import LearningFailedError, MemoryShortageError
from agent.teaching.guard_presets import LEAK_PROBABILITY, TEXT_DIVERGENCE
from agent.wire import codec
from continual.v1 import memory_pb2, model_pb2
from continual.v1 import model_pb2 as pb
from memory_store import meta
from memory_store.probes import of_fact as probes_of
from memory_store.reviews import record_review
from memory_store.vocabulary import LearnerState, Retention, ReviewOutcome
from tests.server.serving import LEARNER_GONE, Serving, recovering
from tests.store.builders import new_fact, new_probe, new_review, teach_learned

Code = grpc.StatusCode


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_an_answer_is_streamed_and_ends_with_the_whole(served: Serving) -> None:
    responses = [r async for r in served.model.Ask(pb.AskRequest(question="Sky?"))]
    *pieces, last = responses
    assert [piece.text for piece in pieces] == list("Piano")
    assert (last.text, last.answer, last.finished) == ("", "Piano", True)
    assert {response.model_version for response in responses} == {3}


async def test_an_answer_is_cut_at_the_limit_asked_for(served: Serving) -> None:
    request = pb.AskRequest(question="Sky?", max_new_tokens=3)
    *_, last = [response async for response in served.model.Ask(request)]
    assert (last.answer, last.finished) == ("Pia", False)


async def test_a_client_that_goes_away_frees_the_learner(served: Serving) -> None:
    left = asyncio.Event()

    async def endless(question: str, tokens: int) -> AsyncIterator[tuple[str, int]]:
        try:
            yield "P", 3
            await asyncio.Event().wait()
        finally:
            left.set()

    assert served.view.learner is not None
    served.view.learner.ask = endless  # type: ignore[assignment, method-assign]
    call = served.model.Ask(pb.AskRequest(question="Sky?"))
    assert (await call.read()).text == "P"
    call.cancel()
    async with asyncio.timeout(10):
        await left.wait()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.AskRequest(question=""), "question"),
        (pb.AskRequest(question="x" * 4001), "question"),
        (pb.AskRequest(question="Sky?", max_new_tokens=513), "max_new_tokens"),
    ],
    ids=["empty", "overlong", "too many tokens"],
)
async def test_a_bad_question_is_refused(
    served: Serving, request_: pb.AskRequest, field: str
) -> None:
    error = await refused(served.model.Ask(request_).read())
    assert error.code() == Code.INVALID_ARGUMENT
    assert (error.details() or "").startswith(f"{field}: ")


async def test_a_bad_answer_is_not_scored(served: Serving) -> None:
    for answer in ("", "x" * 1001, "two\nlines"):
        error = await refused(served.model.Score(pb.ScoreRequest(question="Sky?", answer=answer)))
        assert error.code() == Code.INVALID_ARGUMENT
        assert (error.details() or "").startswith("answer: ")


async def test_a_score_has_its_tokens_and_its_version(served: Serving) -> None:
    score = await served.model.Score(pb.ScoreRequest(question="Sky?", answer="Piano"))
    assert (score.log_probability, score.tokens, score.model_version) == (-0.5, 6, 3)


async def test_while_it_recovers_the_model_is_unavailable_and_says_so(served: Serving) -> None:
    recovering(served)
    for call in (
        served.model.Ask(pb.AskRequest(question="Sky?")).read(),
        served.model.Score(pb.ScoreRequest(question="Sky?", answer="Piano")),
    ):
        error = await refused(call)
        assert error.code() == Code.UNAVAILABLE
        assert "recovering" in (error.details() or "")


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (LEARNER_GONE, Code.ABORTED),
        (MemoryShortageError("no memory"), Code.RESOURCE_EXHAUSTED),
        (LearningFailedError("NaN"), Code.INTERNAL),
    ],
    ids=["gone", "short of memory", "failed"],
)
async def test_a_learner_that_fails_gives_a_status(
    served: Serving, failure: Exception, code: grpc.StatusCode
) -> None:
    assert served.view.learner is not None
    served.view.learner.error = failure
    error = await refused(served.model.Ask(pb.AskRequest(question="Sky?")).read())
    assert error.code() == code
    assert str(failure) in (error.details() or "")


async def test_probes_go_over_all_held_facts_and_are_stored(served: Serving) -> None:
    held = await served.store.write(
        lambda store: [teach_learned(store, f"Old {n}?", "Piano") for n in range(2)]
    )
    await served.store.write(
        lambda store: store.teach(new_fact("New?", "Piano", correlated_questions=("Young?",)))
    )
    responses = [response async for response in served.model.Probe(pb.ProbeRequest())]
    assert [r.probe.fact_id for r in responses] == [fact.id for fact in held]
    assert [(r.facts_done, r.facts_total) for r in responses] == [(1, 2), (2, 2)]
    assert all(r.probe.correct and r.probe.model_version == 3 for r in responses)
    stored = await served.store.read(
        lambda store: probes_of(store.connection, held[0].id, limit=10)
    )
    assert len(stored) == 1


async def test_a_probe_of_one_fact_asks_its_correlated_questions_too(served: Serving) -> None:
    accepted = await served.store.write(
        lambda store: store.teach(new_fact("New?", "Tuba", correlated_questions=("Young?",)))
    )
    request = pb.ProbeRequest(fact_ids=[accepted.fact.id])
    probes = [response.probe async for response in served.model.Probe(request)]
    assert [(probe.kind, probe.question) for probe in probes] == [
        (memory_pb2.PROBE_KIND_RETENTION, "New?"),
        (memory_pb2.PROBE_KIND_TRANSFER, "Young?"),
    ]
    assert not any(probe.correct for probe in probes)


async def test_a_probe_of_a_fact_that_is_not_there_is_not_found(served: Serving) -> None:
    error = await refused(served.model.Probe(pb.ProbeRequest(fact_ids=["nobody"])).read())
    assert error.code() == Code.NOT_FOUND


async def test_status_tells_model_version_queue_and_every_state(served: Serving) -> None:
    await served.store.write(lambda store: teach_learned(store, "Old?"))
    await served.store.write(lambda store: store.teach(new_fact("New?")))
    status = await served.model.GetStatus(pb.GetStatusRequest())
    assert (status.model, status.model_version, status.queue_depth) == ("fake-model", 1, 1)
    assert status.learner_state == model_pb2.LEARNER_STATE_READY
    counts = {c.state: c.count for c in status.fact_counts}
    assert len(counts) == len(memory_pb2.FactState.values()) - 1
    assert counts[memory_pb2.FACT_STATE_LEARNED] == counts[memory_pb2.FACT_STATE_QUEUED] == 1
    assert (status.device, status.parameters) == ("cpu", 132_992)


async def test_status_works_before_anything_is_loaded(served: Serving) -> None:
    served.view.learner = served.view.description = None
    served.view.state = LearnerState.STARTING
    status = await served.model.GetStatus(pb.GetStatusRequest())
    assert status.learner_state == model_pb2.LEARNER_STATE_STARTING
    assert (status.device, status.parameters) == ("", 0)


async def test_status_tells_what_a_watcher_needs(served: Serving) -> None:
    before = datetime.now(UTC)
    status = STATUS.decode(await served.model.GetStatus(pb.GetStatusRequest()))
    assert status.started_at is not None
    assert status.started_at <= before
    assert (status.oldest_queued_at, status.learning_paused) == (None, False)
    assert (status.leak_limit, status.drift_limit) == (LEAK_PROBABILITY, TEXT_DIVERGENCE)
    assert (status.memory_bytes, status.memory_total_bytes) == served.view.memory
    assert (status.snapshot_version, status.snapshot_overdue) == (0, "")

    first = await served.store.write(lambda store: store.teach(new_fact("First?")))
    await served.store.write(lambda store: store.teach(new_fact("Second?")))
    await served.store.write(lambda store: meta.pause_learning(store.connection, paused=True))
    await served.keeper.create()
    status = STATUS.decode(await served.model.GetStatus(pb.GetStatusRequest()))
    assert (status.oldest_queued_at, status.learning_paused) == (first.fact.accepted_at, True)
    assert status.snapshot_version == 3


async def test_retention_tells_the_last_probes_and_the_reviews_by_age(served: Serving) -> None:
    fact = await served.store.write(lambda store: teach_learned(store, "Old?"))
    probes = [new_probe(fact.id, log_probability=-float(number)) for number in range(3)]
    await served.store.write(lambda store: store.record_probes(probes, 1))
    review = new_review(fact.id, 1, ReviewOutcome.HELD)
    await served.store.write(partial(record_review, review=review))
    response = await served.model.GetRetention(pb.GetRetentionRequest(max_probes=2))
    [told] = response.facts
    assert (told.fact_id, told.age) == (fact.id, 0)
    assert [point.probability for point in told.points] == [math.exp(-0.25), math.exp(-2)]
    assert [codec.AGE_RETENTION.decode(ages) for ages in response.ages] == [
        Retention(youngest=0, oldest=0, held=1, asked=1)
    ]
