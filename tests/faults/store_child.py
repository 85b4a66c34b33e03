"""Teaches and records updates as fast as it can, and prints each once it is acknowledged.

Arguments: database file, PRAGMA synchronous, pages of the log between checkpoints, how many tasks
teach at once, and how many facts each. Exits as the server does if the disk fails.
"""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

from agent.server.app import DISK_FAILED_EXIT_CODE
from memory_store.errors import StoreFailedError
from memory_store.store import MemoryStore
from memory_store.vocabulary import Accepted, Learning, NewFact, NewUpdate
from memory_store.writer import StoreThreads
from tests.store.builders import record_learned

LEARNING = Learning(
    learning_rates=(1e-3,),
    probability_before=0.1,
    probability_after=0.9,
    answer_before="wrong",
    answer_after="right",
)
LEARNED_EVERY = 4


def say(verb: str, what: object) -> None:
    # One write each, so that the order of system calls shows when it was acknowledged.
    os.write(1, f"{verb} {what}\n".encode())


def open_store(path: Path, *, read_only: bool = False, synchronous: str) -> MemoryStore:
    store = MemoryStore.open(path, read_only=read_only)
    if not read_only:
        store.connection.execute(f"PRAGMA synchronous = {synchronous}")
    return store


def learn_one(store: MemoryStore) -> int:
    """A row of the ledger for the oldest queued fact; its version."""
    fact = store.claim()
    assert fact is not None
    version = store.model_version()
    update = NewUpdate(
        fact_id=fact.id,
        base_version=version,
        steps=(),
        digest_before=str(version),
        digest_after=str(version + 1),
        algorithm="none",
        environment={},
        seconds=0.0,
    )
    return record_learned(store, update, LEARNING).model_version


async def teach(threads: StoreThreads, task: int, facts: int) -> None:
    for number in range(facts):
        new = NewFact(question=f"Question {task}.{number}?", answer="answer " * 8)
        [accepted] = await threads.teach([new])
        assert isinstance(accepted, Accepted)
        say("accepted", accepted.fact.id)
        if number % LEARNED_EVERY == LEARNED_EVERY - 1:
            say("learned", await threads.write(learn_one))


def disk_failed(error: StoreFailedError) -> None:
    os._exit(DISK_FAILED_EXIT_CODE)


async def main(path: str, synchronous: str, pages: str, tasks: str, facts: str) -> None:
    threads = await StoreThreads.open(
        Path(path),
        open_store=partial(open_store, synchronous=synchronous),
        on_fatal=disk_failed,
        log_pages=int(pages),
    )
    say("ready", "")
    await asyncio.gather(*(teach(threads, task, int(facts)) for task in range(int(tasks))))
    say("done", "")
    await asyncio.Event().wait()  # its end is a kill: closing would empty the log


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
