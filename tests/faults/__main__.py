"""Runs every kind of fault in full, and prints a table at the end: `make faults`.

`python -m tests.faults [SHARE] [KIND...]` runs a share of the cases, such as 0.1, or only some
kinds, by the beginnings of their names. FAULTS_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.faults import (
    clock_set_back,
    copies,
    failing_sync,
    full_disk,
    hostile_peers,
    hung_learner,
    in_process,
    killing,
    power_loss,
    real_servers,
    recovery,
    restored,
    server_points,
    snapshots,
    torn_wal,
    tracing,
    upgrading,
)
from tests.faults.findings import Findings, new_seed

Run = Callable[[Path, int, int], Findings | Awaitable[Findings]]
COLUMNS = ("kind", "cases", "lost", "twice", "diverged", "seconds", "verdict", "seed")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault, in full."""

    name: str
    run: Run
    cases: int
    why_not: Callable[[], str] = str
    must_lose: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    cells: tuple[object, ...]
    passed: bool
    points: Mapping[str, int] = field(default_factory=dict)


KINDS = (
    Kind("kill -9", killing.run, 200),
    Kind("kill -9 of real servers", real_servers.run, 10),
    Kind("kill -9 of real servers at points", server_points.run, len(server_points.CASES)),
    Kind("hung learner", hung_learner.run, 10),
    Kind("restart, 1,000 updates to replay", recovery.run_long, 1_000),
    Kind("restart, default snapshots", recovery.run_default, 2),
    Kind("power loss", power_loss.run, 400, tracing.why_not),
    Kind("power loss, slow sync", partial(power_loss.run, slow=True), 100, tracing.why_not),
    Kind(
        "power loss, synchronous=NORMAL (control)",
        partial(power_loss.run, synchronous="NORMAL"),
        100,
        tracing.why_not,
        must_lose=True,
    ),
    Kind("torn or flipped WAL", torn_wal.run, 600),
    Kind("damaged snapshots", snapshots.run, 50),
    Kind("disk full, then enlarged", full_disk.run, 5, full_disk.why_not),
    Kind("failing sync", failing_sync.run, 20, tracing.why_not),
    Kind("copies of data folders", copies.run, 200),
    Kind("old database, newer snapshots", restored.run, 50),
    Kind("upgrade in the middle of a forget", upgrading.run, 50),
    Kind("hostile HTTP/2 peers", hostile_peers.run, 18),
    Kind("jumping clock", in_process.run_clock, 50),
    Kind("a clock set back", clock_set_back.run, 50),
    Kind("poison fact", in_process.run_poison, 10),
    Kind("stalled subscriber", in_process.run_stalled, 5),
)


def main(arguments: list[str]) -> int:
    share = float(arguments[0]) if arguments else 1.0
    chosen = [k for k in KINDS if not arguments[1:] or k.name.startswith(tuple(arguments[1:]))]
    seed = new_seed()
    rows = []
    for number, kind in enumerate(chosen):
        print(f"==> {kind.name}", flush=True)
        rows.append(run_kind(kind, max(1, round(kind.cases * share)), seed + number))
        # At once: a run that is interrupted still shows what it found.
        print("   ", *map(str, rows[-1].cells), sep=" | ", flush=True)
    print_table(rows)
    return 0 if all(row.passed for row in rows) else 1


def run_kind(kind: Kind, cases: int, seed: int) -> Row:
    """All cases of one kind, in a folder of their own."""
    if why := kind.why_not():
        return Row((kind.name, 0, "-", "-", "-", "-", f"skipped: {why}", seed), passed=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        try:
            found = _run(kind, Path(folder), cases, seed)
        except Exception:  # noqa: BLE001 - the other kinds still run
            traceback.print_exc()
            return Row((kind.name, "-", "-", "-", "-", "-", "broke off", seed), passed=False)
    seconds = time.monotonic() - started
    for remark in found.remarks[-5:]:
        print(f"    {remark}")
    whole = (found.lost > 0) == kind.must_lose and not found.applied_twice and not found.diverged
    verdict = ("loses, as it must" if kind.must_lose else "ok") if whole else "FAILED"
    counts = (found.cases, found.lost, found.applied_twice, found.diverged)
    cells = (kind.name, *counts, f"{seconds:.1f}", verdict, seed)
    return Row(cells, passed=whole, points=found.points)


def _run(kind: Kind, folder: Path, cases: int, seed: int) -> Findings:
    running = kind.run(folder, cases, seed)
    if isinstance(running, Findings):
        return running

    async def wait() -> Findings:
        return await running

    assert inspect.isawaitable(running)
    return asyncio.run(wait())


def print_table(rows: list[Row]) -> None:
    lines: list[tuple[str, ...]] = [COLUMNS]
    for row in rows:
        lines.append(tuple(map(str, row.cells)))
        lines += [
            (f"    {point}", str(cases), *[""] * (len(COLUMNS) - 2))
            for point, cases in sorted(row.points.items())
        ]
    widths = [max(len(str(line[column])) for line in lines) for column in range(len(COLUMNS))]
    print()
    for line in lines:
        cells = [
            str(cell).ljust(width) if column in (0, 6) else str(cell).rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
