"""When a learner counts as hung (M9)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from agent.errors import LearnerUnavailableError, LearningFailedError
from agent.server.learner_link import process
from agent.server.learner_link.heartbeat import Limits, hung

MISS = LearningFailedError("Deadline Exceeded")
LIMITS = Limits(silent_seconds=30, stalled_seconds=600)


class Pings:
    """Answers of a learner, one after the other, and a clock that they move."""

    def __init__(self, *answers: float | Exception) -> None:
        self.left = list(answers)
        self.deadlines: list[float] = []
        self.time = 0.0

    async def _ping(self, deadline: float) -> float:
        self.deadlines.append(deadline)
        answer = self.left.pop(0)
        if isinstance(answer, LearningFailedError):
            self.time += deadline
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _sleep(self, seconds: float) -> None:
        self.time += seconds

    async def reason(self, limits: Limits) -> str:
        return await hung(self._ping, limits, self._sleep, lambda: self.time)


async def test_one_that_misses_pings_in_a_row_is_hung() -> None:
    pings = Pings(0.0, MISS, MISS, 0.0, MISS, LearnerUnavailableError("closed"), MISS)
    assert await pings.reason(LIMITS) == "it has given no sign of life for 30 s"
    assert set(pings.deadlines) == {10}
    assert pings.left == []
    # Two answers a second before the next ping each, and five misses.
    assert pings.time == 2 + 5 * 10


async def test_a_long_unit_is_none_and_a_longer_one_is() -> None:
    assert "601 s" in await Pings(0.0, 40.0, 599.0, 0.0, 601.0).reason(LIMITS)


async def test_limits_can_be_switched_off() -> None:
    pings = Pings(*[MISS] * 20, 1e9, 601.0)
    assert "1000000000 s" in await pings.reason(Limits(silent_seconds=0, stalled_seconds=600))
    pings = Pings(1e9, MISS, MISS, MISS)
    assert "sign of life" in await pings.reason(Limits(silent_seconds=30, stalled_seconds=0))


# --- Processes that stand in for a learner --------------------------------------------------------

SILENT = "exec sleep 600"
LOADING = "while true; do echo alive; sleep 0.01; done"


@contextlib.contextmanager
def instead(monkeypatch: pytest.MonkeyPatch, script: str) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(process, "python_command", lambda *_: ["bash", "-c", f"{script}; exit 1"])
        yield


@pytest.mark.parametrize(
    ("script", "limits"),
    [
        (SILENT, Limits(starting_seconds=0.1)),
        (f"echo alive; {SILENT}", Limits(starting_seconds=0.1)),
        (LOADING, Limits(start_seconds=0.1)),
    ],
    ids=["never speaks", "falls silent", "never ends to load"],
)
async def test_one_that_hangs_at_its_start_is_killed(
    monkeypatch: pytest.MonkeyPatch, script: str, limits: Limits
) -> None:
    with instead(monkeypatch, script), pytest.raises(LearnerUnavailableError, match="hung while"):
        async with process.learner_process([], limits=limits):
            pass


async def test_a_stopped_process_is_killed_and_told_as_hung(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGSTOP: it neither answers nor ends, also when it is asked to."""

    async def serve() -> None:
        limits = Limits(silent_seconds=0.03)
        async with process.learner_process([], limits=limits) as learner:
            os.kill(learner.pid, signal.SIGSTOP)
            async with asyncio.timeout(60):
                code = await learner.wait_dead()
            raise LearnerUnavailableError(f"it ended with {code}")  # what the loop makes of it

    with (
        instead(monkeypatch, f"echo ready; {SILENT}"),
        pytest.raises(LearnerUnavailableError, match="hung, and was killed"),
    ):
        await serve()
