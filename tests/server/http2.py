"""A client that speaks raw HTTP/2, so that it can break the rules of a polite reader.

Only what a hostile peer needs: frames (RFC 9113), headers without compression (RFC 7541), and one
gRPC message. Nothing is read unless `read_until` is called.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import Self

from google.protobuf.message import Message

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
INITIAL_WINDOW_SIZE = 0x4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame: 24 bits of length, kind, flags, stream, payload."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(window: int | None = None) -> bytes:
    """A SETTINGS frame; `window`: the bytes that a new stream may be sent before an update."""
    given = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
    return frame(SETTINGS, 0, 0, given)


def headers(path: str, extra: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A gRPC request's headers, each a literal that is not indexed."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *extra,
    )
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def _text(text: str) -> bytes:
    raw = text.encode()
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    rest, out = len(raw) - 127, b"\x7f"
    while rest >= 128:
        out, rest = out + bytes([rest % 128 + 128]), rest // 128
    return out + bytes([rest]) + raw


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that was received."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class RawPeer:
    """One connection to a server, and nothing that is done by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._next_stream = 1

    @classmethod
    async def connect(cls, address: str, greeting: bytes = PREFACE) -> Self:
        """Opens the connection and sends the greeting, by default the preface alone."""
        host, _, port = address.rpartition(":")
        peer = cls(*await asyncio.open_connection(host, int(port)))
        await peer.send(greeting)
        return peer

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def call(
        self, path: str, request: Message, metadata: tuple[tuple[str, str], ...] = ()
    ) -> int:
        """Begins a call with one request, as a client that sends nothing more; its stream."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        content = request.SerializeToString()
        message = b"\0" + struct.pack(">I", len(content)) + content
        await self.send(
            frame(HEADERS, END_HEADERS, stream, headers(path, metadata))
            + frame(DATA, END_STREAM, stream, message)
        )
        return stream

    async def read(self) -> Frame:
        """The next frame.

        Raises:
            asyncio.IncompleteReadError: the server closed the connection.
        """
        head = await self.reader.readexactly(9)
        size = int.from_bytes(head[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return Frame(kind, flags, stream, await self.reader.readexactly(size))

    async def read_until(self, kind: int, stream: int | None = None) -> Frame:
        """Reads on to a frame of this kind (that is no acknowledgement), and of this stream."""
        while True:
            found = await self.read()
            if found.kind == kind and (stream is None or found.stream == stream):
                return found

    async def open_window(self, stream: int, size: int = 65_535) -> None:
        """Lets the server send so many bytes on a stream."""
        await self.send(frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size)))

    def close(self) -> None:
        self.writer.close()


async def without_window(address: str) -> RawPeer:
    """A peer to which no byte of an answer may be sent."""
    return await RawPeer.connect(address, PREFACE + settings(window=0))
