"""Errors of `eval`, with a message that says what to do."""

from __future__ import annotations

from agent.errors import ConfigError


class RequestError(ConfigError):
    """A field of a request cannot be used.

    Attributes:
        field: its name, which is that of the option too.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
