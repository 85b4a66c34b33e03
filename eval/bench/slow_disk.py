"""`python -m eval.bench.slow_disk serve ...`: the command line on a disk that syncs slowly.

Each commit takes `BENCH_SYNC_SECONDS` longer and releases the interpreter's lock, as an fsync does.
With `BENCH_COMMIT_EACH`, every operation has a commit of its own.
"""

from __future__ import annotations

import os
import runpy
import time
from collections.abc import Sequence

from memory_store import writer
from memory_store.connection import Connection, Row, SqlValue


def slow_down(seconds: float) -> None:
    """Makes every commit of this process wait that long."""
    execute = Connection.execute

    def slow(self: Connection, sql: str, parameters: Sequence[SqlValue] = ()) -> list[Row]:
        rows = execute(self, sql, parameters)
        if sql == "COMMIT" and not self.read_only:
            time.sleep(seconds)
        return rows

    Connection.execute = slow  # type: ignore[method-assign]


if __name__ == "__main__":
    slow_down(float(os.environ["BENCH_SYNC_SECONDS"]))
    if "BENCH_COMMIT_EACH" in os.environ:
        writer.LARGEST_BATCH = 1
    runpy.run_module("agent", run_name="__main__", alter_sys=True)
