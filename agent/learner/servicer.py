"""`LearnerService`: decodes requests, runs them on the device thread, encodes results."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import torch

from agent.errors import MemoryShortageError, StaleVersionError
from agent.learner.answer_batcher import AnswerBatcher
from agent.learner.checkpoint import prepare_snapshot, restore_snapshot
from agent.learner.core import Learner
from agent.learner.device_thread import DeviceThread, Priority
from agent.learner.engine.kv_cache import is_out_of_memory
from agent.learner.process_memory import memory
from agent.teaching.consolidation import Consolidated, Epoch
from agent.teaching.types import Generated, Opening, Outcome
from agent.wire import learner_codec as codec
from agent.wire.codec import STEP
from continual.learner.v1 import learner_pb2 as pb
from continual.learner.v1 import learner_pb2_grpc
from memory_store.vocabulary import Step

logger = logging.getLogger(__name__)

# The exit code after a device fault: no later result of the process can be trusted.
DEVICE_FAULT_EXIT_CODE = 70


class LearnerServicer(learner_pb2_grpc.LearnerServiceServicer):
    """Serves one `Learner` through one `DeviceThread`."""

    def __init__(self, learner: Learner, device: DeviceThread) -> None:
        self._learner = learner
        self._device = device
        self._answering = AnswerBatcher(learner, device)
        self._learned: tuple[str, Outcome] | None = None  # the last fact and its outcome

    @asynccontextmanager
    async def _reporting(
        self, context: grpc.aio.ServicerContext[Any, Any], *, learning: bool = False
    ) -> AsyncIterator[None]:
        """Reports errors of the learner as a status. Ends the process after a device fault.

        Args:
            context: the context of the call.
            learning: whether the call is an update. When it fails, no CUDA graphs are in use, and
                their memory may be freed.
        """
        try:
            yield
        except tuple(codec.STATUS) as error:
            await context.abort(codec.STATUS[type(error)], str(error) or type(error).__name__)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            # Checked first: some accelerators report a lack of memory as a device fault.
            if is_out_of_memory(error):
                # The frames hold references to tensors.
                traceback.clear_frames(error.__traceback__)
                if learning:
                    await self._device.call(Priority.LEARN, self._learner.free_memory)
                else:
                    await self._device.call(Priority.ANSWER, self._learner.free_cached_memory)
                shortage = codec.STATUS[MemoryShortageError]
                await context.abort(shortage, str(error) or "memory ran out")
            if isinstance(error, torch.AcceleratorError):
                logger.critical("the device failed: %s", error)
                os._exit(DEVICE_FAULT_EXIT_CODE)
            raise

    async def Describe(
        self, request: pb.DescribeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DescribeResponse:
        description = await self._device.call(Priority.ANSWER, self._learner.describe)
        return codec.DESCRIPTION.encode(description)

    async def ForgetTexts(
        self, request: pb.ForgetTextsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ForgetTextsResponse:
        self._learned = None
        async with self._reporting(context):
            await self._device.call(Priority.LEARN, self._learner.forget_texts)
        return pb.ForgetTextsResponse()

    async def GetMemory(
        self, request: pb.GetMemoryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetMemoryResponse:
        used, total = memory()
        return pb.GetMemoryResponse(used_bytes=used, total_bytes=total)

    async def Ping(
        self, request: pb.PingRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.PingResponse:
        return pb.PingResponse(stalled_seconds=self._device.stalled_seconds())

    async def Learn(
        self, request: pb.LearnRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.LearnResponse]:
        lesson = codec.LESSON.decode(request)
        learn = functools.partial(self._learner.learn, lesson)
        self._learned = None
        async with self._reporting(context, learning=True):
            async for progress in self._device.stream(Priority.LEARN, learn):
                if isinstance(progress, Step):
                    yield pb.LearnResponse(step=STEP.encode(progress))
                elif isinstance(progress, Opening):
                    yield pb.LearnResponse(opening=codec.OPENING.encode(progress))
                else:
                    self._learned = lesson.example.fact_id, progress
                    yield pb.LearnResponse(outcome=codec.OUTCOME.encode(progress))

    async def Consolidate(
        self, request: pb.ConsolidateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.ConsolidateResponse]:
        plan = codec.CONSOLIDATION.decode(request)
        folder = Path(request.checkpoints) if request.checkpoints else None
        consolidate = functools.partial(self._learner.consolidate, plan, folder)
        self._learned = None
        async with self._reporting(context, learning=True):
            async for progress in self._device.stream(Priority.LEARN, consolidate):
                match progress:  # None stands for one step
                    case Epoch():
                        yield pb.ConsolidateResponse(epoch=codec.EPOCH.encode(progress))
                    case Consolidated():
                        yield pb.ConsolidateResponse(result=codec.CONSOLIDATED.encode(progress))

    async def Sample(
        self, request: pb.SampleRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SampleResponse:
        example = codec.EXAMPLE.decode(request.example)
        learned = self._learned

        def sample() -> Iterator[Outcome | None]:
            if learned is None or learned[0] != example.fact_id:
                raise StaleVersionError(f"{example.fact_id} was not learned last")
            yield (yield from self._learner.with_samples(learned[1], example, request.samples))

        response = pb.SampleResponse()
        async with self._reporting(context, learning=True):
            async for found in self._device.stream(Priority.LEARN, sample):
                if found is not None:  # None stands for one token of the samples
                    response.outcome.CopyFrom(codec.OUTCOME.encode(found))
        return response

    async def Commit(
        self, request: pb.CommitRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CommitResponse:
        commit = functools.partial(self._learner.commit, request.model_version, request.digest)
        async with self._reporting(context):
            await self._device.call(Priority.LEARN, commit)
        return pb.CommitResponse()

    async def Replay(
        self,
        request_iterator: AsyncIterator[pb.ReplayRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[pb.ReplayResponse]:
        async with self._reporting(context, learning=True):
            async for request in request_iterator:
                row = codec.decode_replayed(request)
                replay = functools.partial(
                    self._learner.replay, row, accept_drift=request.accept_drift
                )
                async for _ in self._device.stream(Priority.LEARN, replay):
                    pass
                version, digest = row.update.model_version, self._learner.digest
                yield pb.ReplayResponse(model_version=version, digest=digest)

    async def Restore(
        self, request: pb.RestoreRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.RestoreResponse:
        restore = functools.partial(restore_snapshot, self._learner, Path(request.folder))
        async with self._reporting(context):
            await self._device.call(Priority.LEARN, restore)
        return pb.RestoreResponse(model_version=self._learner.version)

    async def Snapshot(
        self, request: pb.SnapshotRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SnapshotResponse:
        prepare = functools.partial(prepare_snapshot, self._learner, Path(request.folder))
        async with self._reporting(context):
            write = await self._device.call(Priority.LEARN, prepare)
            manifest = await asyncio.to_thread(write)
        return pb.SnapshotResponse(model_version=manifest.model_version, size_bytes=manifest.size)

    async def Export(
        self, request: pb.ExportRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ExportResponse:
        def export() -> int:
            self._learner.export(Path(request.folder))
            return self._learner.version

        async with self._reporting(context):
            version = await self._device.call(Priority.LEARN, export)
        return pb.ExportResponse(model_version=version)

    async def Ask(
        self, request: pb.AskRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.AskResponse]:
        answer = self._answering.ask(request.question, request.max_new_tokens)
        # Closed at once when the client leaves, so that others are answered sooner.
        async with self._reporting(context), aclosing(answer):
            async for said, version in answer:
                if isinstance(said, Generated):
                    yield pb.AskResponse(
                        model_version=version, answer=said.text, finished=said.finished
                    )
                else:
                    yield pb.AskResponse(model_version=version, text=said)

    async def Score(
        self, request: pb.ScoreRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ScoreResponse:
        def score() -> pb.ScoreResponse:
            log_probability, tokens = self._learner.score(request.question, request.answer)
            return pb.ScoreResponse(
                log_probability=log_probability, tokens=tokens, model_version=self._learner.version
            )

        async with self._reporting(context):
            return await self._device.call(Priority.ANSWER, score)

    async def Probe(
        self, request: pb.ProbeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ProbeResponse:
        def probe() -> pb.ProbeResponse:
            retention, *transfer = self._learner.probe(codec.EXAMPLE.decode(request.example))
            return pb.ProbeResponse(
                retention=codec.ANSWER.encode(retention),
                transfer=map(codec.ANSWER.encode, transfer),
                model_version=self._learner.version,
            )

        async with self._reporting(context):
            return await self._device.call(Priority.AUDIT, probe)
