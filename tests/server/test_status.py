"""The table from our errors to gRPC's codes."""

from __future__ import annotations

import logging

import grpc
import pytest

from agent import errors as agent_errors
from agent.wire.status import STATUS, status_of
from memory_store import errors as store_errors

Code = grpc.StatusCode
EXPECTED = {
    agent_errors.InvalidFactError("answer", "is bad"): Code.INVALID_ARGUMENT,
    agent_errors.NotAuthenticatedError("is bad"): Code.UNAUTHENTICATED,
    agent_errors.NotAllowedError("is bad"): Code.PERMISSION_DENIED,
    agent_errors.RateLimitedError("is bad", 1.0): Code.RESOURCE_EXHAUSTED,
    agent_errors.BackupOvertakenError("is bad"): Code.ABORTED,
    agent_errors.SnapshotError("is bad"): Code.UNAVAILABLE,
    agent_errors.LearnerUnavailableError("is bad"): Code.UNAVAILABLE,
    agent_errors.LearnerDiedError("is bad"): Code.ABORTED,
    agent_errors.DeadlyQuestionError("is bad"): Code.FAILED_PRECONDITION,
    agent_errors.TooManyQuestionsError("is bad"): Code.RESOURCE_EXHAUSTED,
    agent_errors.TooManyStreamsError("is bad"): Code.RESOURCE_EXHAUSTED,
    agent_errors.MemoryShortageError("is bad"): Code.RESOURCE_EXHAUSTED,
    agent_errors.LearningFailedError("is bad"): Code.INTERNAL,
    store_errors.InvalidPageTokenError("is bad"): Code.INVALID_ARGUMENT,
    store_errors.FactNotFoundError("is bad"): Code.NOT_FOUND,
    store_errors.FactExistsError("is bad"): Code.ALREADY_EXISTS,
    store_errors.RequestIdUsedError("is bad"): Code.ALREADY_EXISTS,
    store_errors.QueueFullError("is bad"): Code.RESOURCE_EXHAUSTED,
    store_errors.WrongStateError("is bad"): Code.FAILED_PRECONDITION,
    store_errors.StoreUnusableError("is bad"): Code.UNAVAILABLE,
    store_errors.StoreFailedError("is bad"): Code.UNAVAILABLE,
    store_errors.StoreClosedError("is bad"): Code.UNAVAILABLE,
}


@pytest.mark.parametrize(
    ("error", "code"), EXPECTED.items(), ids=[type(error).__name__ for error in EXPECTED]
)
def test_an_expected_error_has_its_code_and_keeps_its_message(
    error: Exception, code: grpc.StatusCode
) -> None:
    refusal = status_of(error)
    assert (refusal.code, refusal.message) == (code, str(error))


def test_every_error_of_the_table_is_expected_above() -> None:
    assert set(STATUS) <= {type(error) for error in EXPECTED}


def test_an_unexpected_error_tells_a_reference_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        refusal = status_of(KeyError("the secret of the house"))
    code, message = refusal.code, refusal.message
    assert code == Code.INTERNAL
    assert "secret" not in message
    assert "KeyError" not in message
    reference = refusal.reference
    assert reference in message
    [record] = caplog.records
    assert reference in record.getMessage()
    assert record.exc_info is not None  # the log has the rest


def test_two_unexpected_errors_can_be_told_apart() -> None:
    assert status_of(ValueError("a")).reference != status_of(ValueError("a")).reference
