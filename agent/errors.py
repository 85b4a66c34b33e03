"""Every error that a user of the agent can meet, each with a message that says what to do.

This module imports nothing large, so that the command line can name an error without loading torch.
"""

from __future__ import annotations

from collections.abc import Iterable


class AgentError(Exception):
    """Base of the agent's own errors; its message tells the user what to do about it."""


class ConfigError(AgentError):
    """A setting is wrong, or asks for what this machine does not have."""


class FolderInUseError(ConfigError):
    """A server runs on the data folder."""


class MissingDeviceError(ConfigError):
    """This machine lacks the device that was asked for: wrong usage, here."""


class DiskFullError(AgentError):
    """The disk has no room for what must be written."""


class ModelError(AgentError):
    """A model cannot be used: its files are damaged, incomplete or of a kind we do not read."""


class ModelNotFoundError(ModelError):
    """No model goes by this name, or it is neither on this machine nor within reach."""


class ModelFetchError(ModelError):
    """A model could not be fetched, or what was fetched is not what was expected."""


class NotCausalLanguageModelError(ModelError):
    """The model does not predict the next token from the earlier ones alone."""


class ServerUnreachableError(AgentError):
    """No server answers at this address."""


class HandshakeFailedError(ServerUnreachableError):
    """A server answers at this address, but TLS with it fails."""


class LearnerError(AgentError):
    """The learner process failed, or refused what it was sent."""


class InvalidFactError(AgentError):
    """A fact, or another request, cannot be taken as it was given.

    Attributes:
        field: The first field that is wrong, by its name in the API, e.g. ``answer``.
        violations: Each field that is wrong, with what is wrong with it.
    """

    def __init__(self, field: str, message: str, more: Iterable[tuple[str, str]] = ()) -> None:
        self.field = field
        self.violations = ((field, message), *more)
        super().__init__("; ".join(": ".join(violation) for violation in self.violations))


class NotAuthenticatedError(AgentError):
    """A call brings no token, or none that the server knows."""


class NotAllowedError(AgentError):
    """The role of a call's token does not cover what was called."""


class TooManyStreamsError(AgentError):
    """A client, or all of them together, have as many streams open as the server allows."""


class WaitTimeoutError(AgentError, TimeoutError):
    """What was waited for has not happened in the time that was given; it may happen yet."""


class RateLimitedError(AgentError):
    """A client calls more often than the server lets one client.

    Attributes:
        retry_after_seconds: when the same call would be let through.
    """

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class LearnerDiedError(LearnerError):
    """The learner died while it was answering a question, which may be why."""


class DeadlyQuestionError(LearnerError):
    """Learners died while they were answering this question: it is not asked again for a while."""


class LearnerUnavailableError(LearnerError):
    """The learner process is gone, or not there yet."""


class LearningFailedError(LearnerError):
    """One fact could not be learned (NaN, out of memory); the learner can go on."""


class UnteachableError(LearningFailedError):
    """A fact does not fit the model: trying again would fail again."""


class MemoryShortageError(LearningFailedError):
    """Memory ran out at a piece of work; the learner has freed what it could, and can go on."""


class TooManyQuestionsError(AgentError):
    """As many questions wait for an answer as may; nothing was asked."""


class StaleVersionError(LearnerError):
    """The learner's weights are at another ledger position than was expected."""


class DriftError(LearnerError):
    """A replayed update did not give the recorded weights."""


class UnreachableError(DriftError):
    """Weights of the ledger cannot be reached any more; nearer ones than the base may be.

    Attributes:
        nearest: the nearest version whose weights can be reached.
        at: the version that the learner serves now; 0 if it is still the base checkpoint.
        digest: of its weights; empty if it replayed nothing.
    """

    def __init__(self, message: str, nearest: int, at: int = 0, digest: str = "") -> None:
        super().__init__(message)
        self.nearest = nearest
        self.at = at
        self.digest = digest


class SnapshotError(AgentError):
    """A snapshot cannot be written, or is torn, altered or of another model."""


class BackupOvertakenError(AgentError):
    """Facts were erased while a backup was written; it was removed, since it held their text."""
