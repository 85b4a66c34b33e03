"""Plays a script on a data folder, prints what is acknowledged, and dies where it is told.

Arguments: folder, seed of the script, its facts, a point and how often it is reached before the
process kills itself there ("" for never), at which `learn` or `commit` the learner dies (0: at
none), and how often a fact may fail before it is quarantined.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import LearnerUnavailableError
from memory_store import branch_growth, undo
from memory_store.acceptance import Answer
from memory_store.connection import Connection
from memory_store.store import MemoryStore
from memory_store.vocabulary import Attempt, Fact, NewFact, Update
from tests.faults.running import Life, living
from tests.faults.script import Forget, RollBack, Teach, roll_back, teach, write_script

# Where it can die. Those of SQLite's own commit come at every write of the store.
POINTS = (
    *("before accepting", "accepted, before the commit"),
    *("before the claim", "claimed, before the commit"),
    *("before learning", "after learning"),
    *("before the ledger row", "in the ledger, before the commit"),
    *("after the ledger row, before the learner's commit", "after the learner's commit"),
    *("before an update is replayed", "before a probe", "in the middle of a snapshot"),
    *("before begin_operation", "after begin_operation, before the commit"),
    *("before record_relearned", "after record_relearned, before the commit"),
    *("before finish_forget", "after finish_forget, before the commit"),
    *("before finish_rollback", "after finish_rollback, before the commit"),
    *("before COMMIT", "after COMMIT, before its answers"),
)
LEARNER_POINTS = ("before learning", "after the ledger row, before the learner's commit")


class Failpoints:
    """Counts how often points are reached."""

    def __init__(self, point: str, times: int, learner_dies_at: int) -> None:
        self._point = point
        self._left = times
        self._learner_left = learner_dies_at

    def reach(self, point: str) -> None:
        """Ends the process if it is the one.

        Raises:
            LearnerUnavailableError: the learner dies here.
        """
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if point in LEARNER_POINTS:
            self._learner_left -= 1
            if self._learner_left == 0:
                raise LearnerUnavailableError("killed by the test")

    def around(self, function: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
        """The function with a point before and one after it."""

        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.reach(before)
            result = function(*arguments, **named)
            self.reach(after)
            return result

        return wrapped


class FailingStore(MemoryStore):
    """A store with points."""

    failpoints: Failpoints

    def teach_many(
        self, new_facts: Sequence[NewFact], max_queued: int | None = None
    ) -> list[Answer]:
        self.failpoints.reach("before accepting")
        answers = super().teach_many(new_facts, max_queued)
        self.failpoints.reach("accepted, before the commit")
        return answers

    def claim(self) -> Fact | None:
        self.failpoints.reach("before the claim")
        fact = super().claim()
        if fact is not None:
            self.failpoints.reach("claimed, before the commit")
        return fact

    def record(self, attempt: Attempt) -> Update | None:
        if attempt.update is None:
            return super().record(attempt)
        self.failpoints.reach("before the ledger row")
        row = super().record(attempt)
        self.failpoints.reach("in the ledger, before the commit")
        return row


def set_points(failpoints: Failpoints) -> None:
    """Into the modules that the loop calls."""
    FailingStore.failpoints = failpoints
    for module, name in (
        (undo, "begin_operation"),
        (branch_growth, "record_relearned"),
        (undo, "finish_forget"),
        (undo, "finish_rollback"),
    ):
        whole = failpoints.around(
            getattr(module, name), f"before {name}", f"after {name}, before the commit"
        )
        setattr(module, name, whole)
    execute = Connection.execute
    commit = failpoints.around(execute, "before COMMIT", "after COMMIT, before its answers")

    def executing(self: Connection, sql: str, *parameters: Any) -> Any:
        committing = sql == "COMMIT" and not self.read_only
        return (commit if committing else execute)(self, sql, *parameters)

    Connection.execute = executing  # type: ignore[assignment, method-assign]


def say(*words: str) -> None:
    print(*words, flush=True)


async def play(life: Life, step: Teach | Forget | RollBack) -> None:
    match step:
        case Teach(new):
            await life.store.write(partial(teach, new=new))
            say("accepted", new.fact_id or "")
        case Forget(fact_id, erase):
            forget = partial(undo.request_forget, fact_id=fact_id, erase=erase)
            await life.store.write(forget)
            say("forgetting", fact_id)
        case RollBack():
            await life.settle()
            await life.store.write(partial(roll_back, step=step))
            say("rolling back", "")
            await life.settle()
    life.loop.wake()


async def main(
    folder: str, seed: str, facts: str, point: str, times: str, dies_at: str, max_attempts: str
) -> None:
    failpoints = Failpoints(point, int(times), int(dies_at))
    set_points(failpoints)
    async with living(
        Path(folder),
        reach=failpoints.reach,
        open_store=FailingStore.open,
        max_attempts=int(max_attempts),
    ) as life:
        say("ready", "")
        for step in write_script(int(seed), int(facts)):
            await play(life, step)
        await life.settle()
    say("done", "")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
