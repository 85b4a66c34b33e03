"""`python -m tests.soak [--minutes M] [--write]`: soaks a server and prints what came of it.

--write puts the table into docs/results/soak.md too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from eval.provenance import commit
from tests.soak.run import ASKERS, READERS, STALLED, TEACHERS, Report, soak

RESULT = Path(__file__).parents[2] / "docs" / "results" / "soak.md"
BURST_FACTS = 8
VERSIONS = ("grpcio", "torch", "transformers")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(soak(Path(folder), options.minutes * 60, BURST_FACTS))
    text = told(report)
    print(text)
    if options.write:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(text, encoding="utf-8")
    sys.exit(1 if report.problems() else 0)


def told(report: Report) -> str:
    """The report as Markdown."""
    seen = report.seen
    rows = [
        *(
            (f"{teachers} teachers at once, {BURST_FACTS} facts each", f"{rate:.0f} facts/s")
            for teachers, rate in report.bursts.items()
        ),
        ("steady work", f"{report.seconds / 60:g} minutes"),
        ("facts taught, all found again", f"{len(seen.taught)}"),
        ("versions served", f"{report.learned}"),
        ("time of a Teach, bursts included", milliseconds(seen.teach_seconds)),
        ("time of an Ask, 8 tokens at most", milliseconds(seen.ask_seconds)),
        ("events missed by watchers that read", f"{seen.gaps}"),
        ("largest write-ahead log", f"{max(report.wal_bytes) / 2**20:.1f} MiB"),
    ]
    for process, held in report.held.items():
        memory, files = report.growth(process)
        rows += [
            (
                f"memory of the {process}: first, last, largest; growth",
                f"{mib(held[0].memory)}, {mib(held[-1].memory)},"
                f" {mib(max(h.memory for h in held))} MiB; {memory / 2**20:+.1f} MiB",
            ),
            (
                f"files of the {process}: first, last, most; growth",
                f"{held[0].files}, {held[-1].files}, {max(h.files for h in held)}; {files:+.0f}",
            ),
        ]
    problems = report.problems() or ["none"]
    lines = [
        "# Soak test",
        "",
        f"`python -m tests.soak --minutes {report.seconds / 60:g} --write`, a server with the model"
        f" `tiny` and its learner, {TEACHERS} teachers, {ASKERS} askers, {READERS} watchers that"
        f" read and {STALLED} that never do, after bursts of 32 and 256 teachers.",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPU cores ({platform.machine()}), clients"
        f" and other work on the same ones; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in VERSIONS)
        + f"; commit {(commit() or 'unknown')[:12]}.",
        "",
        "| what | found |",
        "|---|---|",
        *(f"| {what} | {found} |" for what, found in rows),
        "",
        "Growth is from the second fifth of the steady time to its last, by medians.",
        "",
        f"Broken promises: {'; '.join(problems)}.",
    ]
    return "\n".join(lines) + "\n"


def milliseconds(seconds: list[float]) -> str:
    """Median and 99th percentile."""
    ordered = sorted(seconds)
    median, high = (ordered[int(share * (len(ordered) - 1))] * 1000 for share in (0.5, 0.99))
    return f"median {median:.0f} ms, p99 {high:.0f} ms"


def mib(count: int) -> str:
    return f"{count / 2**20:.0f}"


if __name__ == "__main__":
    main()
