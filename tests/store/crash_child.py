"""Teaches facts as fast as it can, and prints the id of each once it is acknowledged."""

from __future__ import annotations

import asyncio
import itertools
import operator
import sys
from pathlib import Path

from memory_store.vocabulary import NewFact
from memory_store.writer import StoreThreads


async def teach_for_ever(threads: StoreThreads, name: str) -> None:
    for number in itertools.count():
        new = NewFact(question=f"{name} {number}", answer="a")
        accepted = await threads.write(operator.methodcaller("teach", new))
        print(accepted.fact.id, flush=True)


async def main(path: Path, name: str) -> None:
    threads = await StoreThreads.open(path)
    await asyncio.gather(*(teach_for_ever(threads, f"{name} {task}") for task in range(8)))


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
