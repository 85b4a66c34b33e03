"""Keeps responses below 4 MiB, the default limit of gRPC clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
R = TypeVar("R")

# The limit of a page, or of a list in a response. One fact may take 0.5 MiB.
PAGE_BYTES = 2 * 1024 * 1024
# Overhead of a nested message: its field number and its length.
BYTES_AROUND = 8
DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 50, 1000


def page_size(requested: int) -> int:
    """The number of items of a page, for a request that names it; 0 leaves it to the server."""
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


class Room:
    """A budget of bytes for messages."""

    def __init__(self, size: int = PAGE_BYTES) -> None:
        self._left = size

    def take(self, message: Message) -> bool:
        """Reserves the bytes of a message; False if it does not fit."""
        size = message.ByteSize() + BYTES_AROUND
        if size > self._left:
            return False
        self._left -= size
        return True

    def fitting(self, messages: Iterable[M]) -> list[M]:
        """Returns the first messages, as many as fit."""
        fit = []
        for message in messages:
            if not self.take(message):
                break
            fit.append(message)
        return fit


class Page(Generic[R, M]):
    """The messages of one page, limited by their size. The first always fits.

    Args:
        encode: makes the message of a record.

    Attributes:
        messages: the messages of the records that fit.
    """

    def __init__(self, encode: Callable[[R], M]) -> None:
        self._encode = encode
        self._room = Room()
        self.messages: list[M] = []

    def fits(self, record: R) -> bool:
        """Adds a record; False if the page is full."""
        message = self._encode(record)
        if not self._room.take(message) and self.messages:
            return False
        self.messages.append(message)
        return True
