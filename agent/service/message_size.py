"""Answers that no gRPC client refuses: one takes 4 MiB unless it says otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

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
