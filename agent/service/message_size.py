"""Answers that no gRPC client refuses: one takes 4 MiB unless it says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
R = TypeVar("R")

# What a page, or a list inside an answer, may take. One fact can have 0.5 MiB.
PAGE_BYTES = 2 * 1024 * 1024
# Of a message inside another: its field number and its length.
BYTES_AROUND = 8


class Room:
    """What is left of a limit of bytes."""

    def __init__(self, size: int = PAGE_BYTES) -> None:
        self._left = size

    def take(self, message: Message) -> bool:
        """Whether the message fits; its bytes are then taken."""
        size = message.ByteSize() + BYTES_AROUND
        if size > self._left:
            return False
        self._left -= size
        return True

    def fitting(self, messages: Iterable[M]) -> list[M]:
        """The first ones, as many as fit."""
        fit = []
        for message in messages:
            if not self.take(message):
                break
            fit.append(message)
        return fit


class Page(Generic[R, M]):
    """The messages of a page that ends by its bytes; it has one at least.

    Args:
        encode: from a record to its message.

    Attributes:
        messages: of the records that fit.
    """

    def __init__(self, encode: Callable[[R], M]) -> None:
        self._encode = encode
        self._room = Room()
        self.messages: list[M] = []

    def fits(self, record: R) -> bool:
        """Takes the record, unless the page is full."""
        message = self._encode(record)
        if not self._room.take(message) and self.messages:
            return False
        self.messages.append(message)
        return True
