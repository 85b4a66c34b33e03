"""Peers that do not read, or say nothing, by name: each opens a connection and leaves it so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from continual.v1 import memory_pb2, model_pb2
from tests.server.http2 import (
    HEADERS,
    PREFACE,
    SETTINGS,
    RawPeer,
    frame,
    headers,
    settings,
    without_window,
)

Attack = Callable[[str], Awaitable[RawPeer]]


def blocked(path: str, request: Message) -> Attack:
    """A call whose answer the server has begun to send, to a peer that takes no byte of it."""

    async def attack(address: str) -> RawPeer:
        peer = await without_window(address)
        stream = await peer.call(path, request)
        await peer.read_until(HEADERS, stream)
        return peer

    return attack


async def silent_after_settings(address: str) -> RawPeer:
    peer = await RawPeer.connect(address, PREFACE + settings())
    await peer.read_until(SETTINGS)
    return peer


async def half_open(address: str) -> RawPeer:
    return await RawPeer.connect(address, b"")


async def slow_preface(address: str) -> RawPeer:
    return await RawPeer.connect(address, PREFACE[:10])


async def slow_headers(address: str) -> RawPeer:
    peer = await silent_after_settings(address)
    await peer.send(frame(HEADERS, 0, 1, headers("/continual.v1.MemoryService/Teach")[:10]))
    return peer


ATTACKS: Mapping[str, Attack] = {
    "health watch": blocked("/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest()),
    "health check": blocked("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest()),
    "events": blocked("/continual.v1.MemoryService/WatchEvents", memory_pb2.WatchEventsRequest()),
    "ask": blocked("/continual.v1.ModelService/Ask", model_pb2.AskRequest(question="Sky?")),
    "teach": blocked(
        "/continual.v1.MemoryService/Teach", memory_pb2.TeachRequest(question="Gem?", answer="Hat")
    ),
    "settings and nothing else": silent_after_settings,
    "half-open": half_open,
    "slow preface": slow_preface,
    "slow headers": slow_headers,
}
