"""`python -m eval.bench.watchers ADDRESS COUNT`: clients that watch all events of a server.

Each has its own connection, and does not decode what it receives. Prints a line once every client
has received an event. When standard input ends, prints the mean number of events of a client.
"""

from __future__ import annotations

import asyncio
import sys

import grpc

from continual.v1 import memory_pb2 as pb

METHOD = "/continual.v1.MemoryService/WatchEvents"
WATCHING = "watching"
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


async def _watch(address: str, count: int) -> None:
    first: asyncio.Queue[None] = asyncio.Queue()
    received = [0] * count

    async def one(number: int) -> None:
        async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
            call = channel.unary_stream(
                METHOD,
                request_serializer=pb.WatchEventsRequest.SerializeToString,
                response_deserializer=None,
            )(pb.WatchEventsRequest(after_sequence=-1))
            async for _ in call:
                received[number] += 1
                if received[number] == 1:
                    first.put_nowait(None)

    watching = [asyncio.create_task(one(number)) for number in range(count)]
    for _ in range(count):
        await first.get()
    print(WATCHING, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(sum(received) / count, flush=True)
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(_watch(sys.argv[1], int(sys.argv[2])))
