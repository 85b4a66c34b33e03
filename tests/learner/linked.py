"""A learner behind its own service, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from agent.learner.core import Learner
from agent.learner.device_thread import DeviceThread
from agent.learner.servicer import LearnerServicer
from agent.server.learner_link.client import LearnerClient
from continual.learner.v1 import learner_pb2_grpc


@asynccontextmanager
async def linked(learner: Learner) -> AsyncIterator[LearnerClient]:
    """The learner behind its own service, and a client of it."""
    device = DeviceThread()
    server = grpc.aio.server()
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(LearnerServicer(learner, device), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield LearnerClient(channel)
    finally:
        await server.stop(None)
        await asyncio.to_thread(device.close)
