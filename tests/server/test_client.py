"""What the link to the learner tells those who watch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import grpc
import pytest

from agent.server.learner_link.client import LearnerClient
from agent.teaching.plan import LessonPlan
from agent.teaching.types import Example
from continual.learner.v1 import learner_pb2 as pb
from tests.learner.learners import POLICY, fresh
from tests.learner.linked import linked


async def test_only_probes_of_held_facts_are_told_as_retention() -> None:
    observer = Mock()
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        client: Any = LearnerClient(channel, observer)

        async def probe(request: pb.ProbeRequest) -> pb.ProbeResponse:
            return pb.ProbeResponse(retention=pb.Answer(text="Piano"), model_version=3)

        client._stub = Mock(Probe=probe)
        example = Example(fact_id="f", question="Sky?", answer="Piano")
        answers, version = await client.probe(example, held=False)
        assert ([answer.text for answer in answers], version) == (["Piano"], 3)
        assert not observer.probed.called
        await client.probe(example)
        assert observer.probed.call_count == 1


async def test_what_is_learned_again_on_a_branch_is_not_told() -> None:
    observer = Mock()
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        client: Any = LearnerClient(channel, observer)

        async def learn(request: pb.LearnRequest) -> AsyncIterator[pb.LearnResponse]:
            yield pb.LearnResponse(outcome=pb.Outcome(verdict="learned"))

        client._stub = Mock(Learn=learn)
        example = Example(fact_id="f", question="Sky?", answer="Piano")
        lesson = LessonPlan(example=example, policy=POLICY, base_version=3)
        for again, told in ((True, 0), (False, 1)):
            [outcome] = [one async for one in client.learn(replace(lesson, again=again))]
            assert outcome.verdict == "learned"
            assert observer.learned.call_count == told


async def test_texts_are_dropped_over_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = fresh()
    dropped: list[bool] = []
    monkeypatch.setattr(learner, "forget_texts", lambda: dropped.append(True))
    async with linked(learner) as client:
        await client.forget_texts()
    assert dropped == [True]
