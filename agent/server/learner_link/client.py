"""The client of the learner process: takes and returns records, and raises our errors."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from agent.errors import InvalidFactError, LearningFailedError
from agent.server.telemetry.observer import Observer
from agent.teaching.consolidation import Consolidated, ConsolidationPlan, Epoch
from agent.teaching.plan import LessonPlan
from agent.teaching.types import (
    Answer,
    Example,
    Generated,
    LearnerDescription,
    Opening,
    Outcome,
    ReplayedUpdate,
)
from agent.wire import learner_codec as codec
from agent.wire.codec import STEP
from continual.learner.v1 import learner_pb2 as pb
from continual.learner.v1 import learner_pb2_grpc
from memory_store.vocabulary import Step

# Generous: only a busy interpreter answers late.
MEMORY_DEADLINE_SECONDS = 2.0
# The text of a tokenizer with 250,000 words takes about 17 MB.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


@contextmanager
def our_errors() -> Iterator[None]:
    """Raises our errors for the statuses of `LearnerServicer`.

    Any other status means that this one call failed.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
            field, _, message = (error.details() or "").partition(": ")
            raise InvalidFactError(field, message) from error
        kind = codec.ERRORS.get(error.code(), LearningFailedError)
        raise kind(error.details() or error.code().name) from error


class LearnerClient:
    """Calls one learner process over one channel.

    Every method raises `LearnerUnavailableError` if the process is gone.

    Args:
        channel: the channel to the process.
        observer: receives what was learned and probed, for metrics.
    """

    def __init__(self, channel: grpc.aio.Channel, observer: Observer | None = None) -> None:
        self._stub = learner_pb2_grpc.LearnerServiceStub(channel)
        self._observer = observer

    async def describe(self) -> LearnerDescription:
        """Returns what the learner has loaded."""
        with our_errors():
            return codec.DESCRIPTION.decode(await self._stub.Describe(pb.DescribeRequest()))

    async def learn(self, lesson: LessonPlan) -> AsyncIterator[Opening | Step | Outcome]:
        """Yields each step and last the outcome; see `Learner.learn`.

        What is learned again on a branch is not reported to the observer.

        Raises:
            LearningFailedError: this fact could not be learned; the learner can go on.
            StaleVersionError: the learner is at another version.
        """
        started = time.perf_counter()
        with our_errors():
            async for response in self._stub.Learn(codec.LESSON.encode(lesson)):
                match response.WhichOneof("progress"):
                    case "opening":
                        yield codec.OPENING.decode(response.opening)
                    case "step":
                        yield STEP.decode(response.step)
                    case _:
                        outcome = codec.OUTCOME.decode(response.outcome)
                        if self._observer is not None and not lesson.again:
                            seconds = time.perf_counter() - started
                            self._observer.learned(lesson.example.fact_id, outcome, seconds)
                        yield outcome

    async def consolidate(
        self, plan: ConsolidationPlan, checkpoints: Path | None = None
    ) -> AsyncGenerator[Epoch | Consolidated]:
        """Yields each epoch and last the result; see `Learner.consolidate`.

        Raises:
            LearningFailedError: the loss is not finite; the learner can go on.
        """
        request = codec.CONSOLIDATION.encode(plan)
        request.checkpoints = str(checkpoints or "")
        with our_errors():
            async for response in self._stub.Consolidate(request):
                if response.HasField("result"):
                    yield codec.CONSOLIDATED.decode(response.result)
                else:
                    yield codec.EPOCH.decode(response.epoch)

    async def sample(self, example: Example, samples: int) -> Outcome:
        """Samples texts from the weights that were learned last; see `Learner.with_samples`.

        Raises:
            StaleVersionError: another fact was learned last.
        """
        request = pb.SampleRequest(example=codec.EXAMPLE.encode(example), samples=samples)
        with our_errors():
            return codec.OUTCOME.decode((await self._stub.Sample(request)).outcome)

    async def forget_texts(self) -> None:
        """Drops cached texts; see `Learner.forget_texts`."""
        with our_errors():
            await self._stub.ForgetTexts(pb.ForgetTextsRequest())

    async def memory(self) -> tuple[int, int]:
        """Returns the bytes in use and in total, of its GPU or of RAM."""
        with our_errors():
            response = await self._stub.GetMemory(
                pb.GetMemoryRequest(), timeout=MEMORY_DEADLINE_SECONDS
            )
        return response.used_bytes, response.total_bytes

    async def ping(self, deadline: float) -> float:
        """Returns for how many seconds its device has made no progress.

        Args:
            deadline: the longest wait for the response, in seconds.
        """
        with our_errors():
            response = await self._stub.Ping(pb.PingRequest(), timeout=deadline)
        return response.stalled_seconds

    async def commit(self, version: int, digest: str) -> None:
        """Serves what was learned last; see `Learner.commit`."""
        with our_errors():
            await self._stub.Commit(pb.CommitRequest(model_version=version, digest=digest))

    async def replay(
        self, updates: Iterable[ReplayedUpdate], accept_drift: bool = False
    ) -> AsyncIterator[tuple[int, str]]:
        """Replays rows of the ledger, in order; yields each version and its digest.

        Raises:
            DriftError: the weights do not come out as recorded, and drift is not accepted.
        """
        requests = (codec.encode_replayed(row, accept_drift) for row in updates)
        with our_errors():
            async for response in self._stub.Replay(requests):
                yield response.model_version, response.digest

    async def restore(self, folder: Path) -> int:
        """Serves the weights of a snapshot; returns its version.

        Raises:
            SnapshotError: it is torn, altered or of another model.
        """
        with our_errors():
            response = await self._stub.Restore(pb.RestoreRequest(folder=str(folder)))
        return response.model_version

    async def snapshot(self, folder: Path) -> tuple[int, int]:
        """Writes a snapshot into the folder of all snapshots; returns its version and bytes.

        Raises:
            SnapshotError: it cannot be written.
        """
        with our_errors():
            response = await self._stub.Snapshot(pb.SnapshotRequest(folder=str(folder)))
        return response.model_version, response.size_bytes

    async def export(self, folder: Path) -> int:
        """Writes a plain Hugging Face checkpoint; returns the version it holds."""
        with our_errors():
            response = await self._stub.Export(pb.ExportRequest(folder=str(folder)))
        return response.model_version

    async def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        """Yields pieces of the answer and then the whole, each with its model version."""
        request = pb.AskRequest(question=question, max_new_tokens=max_new_tokens)
        call = self._stub.Ask(request)
        try:
            with our_errors():
                async for response in call:
                    if response.text:
                        yield response.text, response.model_version
                    else:
                        whole = Generated(text=response.answer, finished=response.finished)
                        yield whole, response.model_version
        finally:
            call.cancel()  # no effect if it has ended

    async def score(self, question: str, answer: str) -> tuple[float, int, int]:
        """Returns the log-probability of an answer, its tokens, and the model version."""
        with our_errors():
            response = await self._stub.Score(pb.ScoreRequest(question=question, answer=answer))
        return response.log_probability, response.tokens, response.model_version

    async def probe(self, example: Example, *, held: bool = True) -> tuple[list[Answer], int]:
        """Returns answers to the fact's question and correlated questions, and the version.

        Args:
            example: the fact.
            held: whether the model should know the fact, so that the answers count as retention.
        """
        started = time.perf_counter()
        with our_errors():
            response = await self._stub.Probe(
                pb.ProbeRequest(example=codec.EXAMPLE.encode(example))
            )
        answers = [codec.ANSWER.decode(a) for a in (response.retention, *response.transfer)]
        if self._observer is not None and held:
            self._observer.probed(answers, time.perf_counter() - started)
        return answers, response.model_version
