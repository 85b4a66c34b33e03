"""`ModelService`: asks the served weights, and reports the status of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import grpc

from agent.config import DEFAULT_MAX_QUESTIONS
from agent.server.api.held_facts import held_facts
from agent.server.api.question_gate import CurrentLearner, QuestionGate
from agent.teaching.guard_presets import LEAK_PROBABILITY, TEXT_DIVERGENCE
from agent.teaching.limits import UNLIMITED, TeachingLimits
from agent.teaching.types import Example, Generated, LearnerDescription
from agent.wire import codec
from continual.v1 import model_pb2 as pb
from continual.v1 import model_pb2_grpc
from memory_store import meta, operations, vocabulary
from memory_store.facts import count_by_state
from memory_store.retention import last_probes
from memory_store.reviews import retention_by_age
from memory_store.store import MemoryStore
from memory_store.vocabulary import HELD, Fact, FactState, LearnerState, ProbeKind
from memory_store.writer import StoreThreads

Context = grpc.aio.ServicerContext[Any, Any]
DEFAULT_NEW_TOKENS = 32
# Of `GetRetention`.
DEFAULT_FACTS, MAX_FACTS = 100, 1000
DEFAULT_PROBES, MAX_PROBES = 10, 100
# About 30 bytes each, so that a response stays far below the limit of clients.
MAX_PROBES_IN_ALL = 50_000


class LearnerView(CurrentLearner, Protocol):
    """What the service needs from the learning loop."""

    @property
    def state(self) -> LearnerState:
        """What the learner is doing."""
        ...

    @property
    def description(self) -> LearnerDescription | None:
        """What it has loaded, once known."""
        ...

    @property
    def message(self) -> str:
        """Why the learner is not ready, for people."""
        ...

    @property
    def clean_up_problem(self) -> str:
        """Remains of a forgotten fact that cannot be removed now; empty if there are none."""
        ...

    @property
    def updates_to_replay(self) -> int:
        """How many updates recovery still has to replay."""
        ...

    @property
    def memory(self) -> tuple[int, int]:
        """Bytes that the learner uses, and bytes in total; zeros while they are unknown."""
        ...


class SnapshotView(Protocol):
    """What the service reports about snapshots; see `SnapshotKeeper`."""

    @property
    def newest(self) -> int:
        """The newest version that a snapshot holds; 0 if there is none."""
        ...

    def overdue(self) -> str:
        """Why a snapshot is overdue; empty if none is."""
        ...


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Asks, scores and probes.

    Args:
        store: the memory.
        view: the learning loop.
        snapshots: the snapshots of the memory.
        model: the name of the model, as the operator gave it.
        limits: the policies, rates and steps that a fact may ask for.
        max_questions: the most questions that wait or are being answered at the same time.
    """

    def __init__(
        self,
        store: StoreThreads,
        view: LearnerView,
        snapshots: SnapshotView,
        model: str,
        limits: TeachingLimits = UNLIMITED,
        max_questions: int = DEFAULT_MAX_QUESTIONS,
    ) -> None:
        self._gate = QuestionGate(view, max_questions)
        self._store = store
        self._view = view
        self._snapshots = snapshots
        self._model = model
        self._limits = limits
        self._started_at = datetime.now(UTC)

    async def Ask(self, request: pb.AskRequest, context: Context) -> AsyncIterator[pb.AskResponse]:
        """Streams the answer as it is generated."""
        tokens = request.max_new_tokens or DEFAULT_NEW_TOKENS
        # Closed at once when the client leaves, so that the learner stops generating.
        async with aclosing(self._gate.ask(request.question, tokens)) as answer:
            async for piece, version in answer:
                if isinstance(piece, Generated):
                    yield pb.AskResponse(
                        model_version=version, answer=piece.text, finished=piece.finished
                    )
                else:
                    yield pb.AskResponse(model_version=version, text=piece)

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        """Scores an answer in one forward pass."""
        log_probability, tokens, version = await self._gate.score(request.question, request.answer)
        return pb.ScoreResponse(
            log_probability=log_probability, tokens=tokens, model_version=version
        )

    async def Probe(
        self, request: pb.ProbeRequest, context: Context
    ) -> AsyncIterator[pb.ProbeResponse]:
        """Probes fact by fact and stores the results."""
        ids = tuple(request.fact_ids)
        if ids:
            total = len(ids)
        else:
            counts = await self._store.read(lambda store: count_by_state(store.connection))
            total = sum(counts[state] for state in HELD)
        done = 0
        async for fact in self._facts(ids):
            done += 1
            for probe in await self._probe(fact):
                yield pb.ProbeResponse(
                    probe=codec.PROBE.encode(probe), facts_done=done, facts_total=total
                )

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """Reports the state of the database and the learning loop."""
        version, counts, sequence, oldest, paused, operation = await self._store.read(
            lambda store: (
                store.model_version(),
                count_by_state(store.connection),
                store.last_event_sequence(),
                store.facts(limit=1, states=[FactState.QUEUED]),
                meta.learning_paused(store.connection),
                operations.oldest_open(store),
            )
        )
        description = self._view.description
        memory, memory_total = self._view.memory
        return pb.GetStatusResponse(
            model=self._model,
            model_version=version,
            queue_depth=counts[FactState.QUEUED] + counts[FactState.LEARNING],
            fact_counts=[
                pb.StateCount(state=codec.STATE_TO_PB[state], count=count)
                for state, count in counts.items()
            ],
            learner_state=codec.LEARNER_TO_PB[self._view.state],
            device=description.device if description else "",
            parameters=description.parameters if description else 0,
            event_sequence=sequence,
            updates_to_replay=self._view.updates_to_replay,
            learner_message=self._view.message,
            start_time=codec.encode_time(self._started_at),
            oldest_queued_time=codec.encode_time(oldest[0].accepted_at) if oldest else None,
            learning_paused=paused,
            leak_limit=LEAK_PROBABILITY,
            drift_limit=TEXT_DIVERGENCE,
            teaching_limits=codec.LIMITS.encode(self._limits),
            memory_bytes=memory,
            memory_total_bytes=memory_total,
            snapshot_version=self._snapshots.newest,
            snapshot_overdue=self._snapshots.overdue(),
            operation=codec.encode_operation(operation) if operation else None,
            clean_up_problem=self._view.clean_up_problem,
        )

    async def GetRetention(
        self, request: pb.GetRetentionRequest, context: Context
    ) -> pb.GetRetentionResponse:
        """Reports the recorded probes and reviews."""
        max_facts = min(request.max_facts or DEFAULT_FACTS, MAX_FACTS)
        max_probes = min(request.max_probes or DEFAULT_PROBES, MAX_PROBES)
        max_probes = min(max_probes, MAX_PROBES_IN_ALL // max_facts)

        def retention(store: MemoryStore) -> pb.GetRetentionResponse:
            return pb.GetRetentionResponse(
                facts=map(codec.FACT_RETENTION.encode, last_probes(store, max_facts, max_probes)),
                ages=map(codec.AGE_RETENTION.encode, retention_by_age(store)),
            )

        # Encoded in the store thread as well: many probes would block the event loop.
        return await self._store.read(retention)

    async def _facts(self, ids: tuple[str, ...]) -> AsyncIterator[Fact]:
        for id_ in ids:
            yield await self._store.read(partial(MemoryStore.fact, fact_id=id_))
        if not ids:
            async for fact in held_facts(self._store):
                yield fact

    async def _probe(self, fact: Fact) -> list[vocabulary.Probe]:
        example = Example.of(fact)
        answers, version = await self._gate.probe(example, held=fact.state in HELD)
        questions = (fact.question, *fact.correlated_questions)
        kinds = [ProbeKind.RETENTION] + [ProbeKind.TRANSFER] * len(fact.correlated_questions)
        new = [
            answer.as_probe(kind, example, question)
            for kind, question, answer in zip(kinds, questions, answers, strict=True)
        ]
        return await self._store.write(lambda store: store.record_probes(new, version))
