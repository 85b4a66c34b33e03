"""The end of learning when the server is told to stop: waited for, but not for ever."""

from __future__ import annotations

import asyncio
import logging

import pytest

from agent.errors import DriftError
from agent.server.app import _drained


async def test_the_update_in_hand_is_waited_for() -> None:
    ended = []

    async def learn() -> None:
        await asyncio.sleep(0.05)
        ended.append(True)

    await _drained(asyncio.create_task(learn()), 30)
    assert ended


async def test_one_that_takes_too_long_is_given_up_and_cleaned_up_after(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cleaned = []

    async def learn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    learning = asyncio.create_task(learn())
    await asyncio.sleep(0)
    with caplog.at_level(logging.WARNING):
        await _drained(learning, 0.01)
    assert cleaned
    assert learning.cancelled()
    assert "given up" in caplog.text


async def test_why_learning_failed_is_not_lost() -> None:
    async def learn() -> None:
        raise DriftError("other weights")

    with pytest.raises(DriftError, match="other weights"):
        await _drained(asyncio.create_task(learn()), 30)
