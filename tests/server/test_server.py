"""What every gRPC tool expects of a server: reflection, health, and its address to itself."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from agent.client.async_client import AsyncClient
from agent.errors import ConfigError
from agent.server.api.memory_servicer import MemoryServicer
from agent.server.api.model_servicer import ModelServicer
from agent.server.api.server import (
    ADMIN_SERVICE,
    MEMORY_SERVICE,
    MODEL_SERVICE,
    HealthServer,
    Server,
)
from agent.wire.error_details import RequestError
from continual.v1 import memory_pb2
from memory_store.errors import StoreFailedError
from tests.server.serving import Serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_reflection_lists_the_services_and_describes_them(served: Serving) -> None:
    def look() -> tuple[list[str], list[str]]:
        with grpc.insecure_channel(served.server.address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            file = database.FindFileContainingSymbol(MEMORY_SERVICE)
            return list(database.get_services()), [m.name for m in file.service[0].method]

    services, methods = await asyncio.to_thread(look)
    assert {MEMORY_SERVICE, MODEL_SERVICE, ADMIN_SERVICE, "grpc.health.v1.Health"} <= set(services)
    assert methods == [
        method.name for method in memory_pb2.DESCRIPTOR.services_by_name["MemoryService"].methods
    ]


async def test_health_is_told_per_service_and_starts_as_not_serving() -> None:
    server = HealthServer("127.0.0.1:0")
    await server.start()
    services = ("", MEMORY_SERVICE, MODEL_SERVICE, ADMIN_SERVICE)
    async with grpc.aio.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        async def check(service: str) -> int:
            response = await health.Check(health_pb2.HealthCheckRequest(service=service))
            return int(response.status)

        assert [await check(service) for service in services] == [NOT_SERVING] * 4
        server.set_serving(MEMORY_SERVICE, True)
        assert [await check(service) for service in services] == [
            NOT_SERVING,
            SERVING,
            NOT_SERVING,
            NOT_SERVING,
        ]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check("no.such.Service")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    await server.stop(0)


async def test_health_watchers_see_the_server_leave(served: Serving) -> None:
    served.server.set_serving("", True)
    watch = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    stopping = asyncio.create_task(served.server.stop(5))
    assert (await watch.read()).status == NOT_SERVING
    watch.cancel()
    await stopping


async def test_stopping_does_not_wait_for_watchers(served: Serving) -> None:
    call = served.memory.WatchEvents(memory_pb2.WatchEventsRequest())
    await served.memory.Teach(memory_pb2.TeachRequest(question="Sky?", answer="Piano"))
    await call.read()
    served.hub.close()
    await asyncio.wait_for(served.server.stop(600), 60)
    assert await call.code() == grpc.StatusCode.OK


async def test_a_port_in_use_is_refused_with_the_remedy(served: Serving) -> None:
    second = Server(
        served.server.address,
        MemoryServicer(served.store, lambda: served.rules, served.hub, lambda: None),
        ModelServicer(served.store, served.view, served.keeper, "fake-model"),
        served.admin_servicer(),
    )
    with pytest.raises(ConfigError, match="--listen") as caught:
        await second.start()
    assert served.server.address in str(caught.value)


async def test_an_unknown_method_is_unimplemented(served: Serving) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.channel.unary_unary("/continual.v1.MemoryService/Dream")(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_over_a_damaged_memory_every_call_is_told_why() -> None:
    server = HealthServer("127.0.0.1:0", refusal=StoreFailedError("memory.db is damaged."))
    await server.start()
    async with AsyncClient(server.address) as client:
        for call in (
            client.teach("Sky?", "Piano"),
            client.status(),
            client.ask("Sky?"),
            client.forget("the-sky"),
            client.wait_accepting(),  # which no start mends
        ):
            with pytest.raises(RequestError, match=r"memory\.db is damaged") as refused:
                await call
            assert refused.value.reason == "MEMORY_UNUSABLE"
    await server.stop(0)
