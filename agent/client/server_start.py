"""Waiting for a server that is starting: its port may not be open yet, or its model not loaded."""

from __future__ import annotations

import time
from collections.abc import Callable

from agent.errors import AgentError, HandshakeFailedError, LearnerError, ServerUnreachableError
from agent.wire.error_details import RequestError
from memory_store.vocabulary import LearnerState

START_SECONDS = 60.0
"""How long a client waits by default for a server to start."""

POLL_SECONDS = 0.1
# Reasons of UNAVAILABLE that do not pass while a server starts.
_LASTING = frozenset({"MEMORY_UNUSABLE", "SNAPSHOT_UNUSABLE"})


class Start:
    """One wait for a server.

    Args:
        seconds: the longest wait; 0: none.
        on_wait: called with the reason for the wait, each time it changes.
        now: the clock, in seconds.
    """

    def __init__(
        self,
        seconds: float,
        on_wait: Callable[[AgentError], None] = lambda reason: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._on_wait = on_wait
        self._now = now
        self._deadline = now() + seconds
        self._reported = ""

    def blocked_by(self, reason: AgentError) -> None:
        """Returns if the wait goes on.

        Raises:
            AgentError: the reason, if waiting does not help, or the time is over.
        """
        if not may_pass(reason):
            raise reason
        if self._now() >= self._deadline:
            if isinstance(reason, LearnerError):
                raise LearnerError(
                    f"after {self._seconds:g} s {reason}: 'agent status --wait' waits until it is"
                    " ready, and --start-timeout SECONDS waits longer"
                ) from reason
            raise reason
        if str(reason) != self._reported:
            self._reported = str(reason)
            self._on_wait(reason)


def may_pass(error: AgentError) -> bool:
    """Whether an error may pass when a server has started."""
    if isinstance(error, RequestError):
        return error.is_unavailable and error.reason not in _LASTING
    if isinstance(error, HandshakeFailedError):
        return False
    return isinstance(error, (ServerUnreachableError, LearnerError))


def not_ready(learner: LearnerState, message: str) -> LearnerError:
    """The reason for waiting for a server that answers, but whose learner is not ready."""
    why = f" ({message})" if message else ""
    return LearnerError(f"the learner is {learner}{why}")
