"""Python, memory, SQLite, and the clock."""

from __future__ import annotations

import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from agent.doctor.findings import GIB, Finding, bad, good
from memory_store.connection import MINIMUM_SQLITE, require_safe_sqlite
from memory_store.errors import StoreUnusableError

# A correct clock shows no earlier time.
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """3.11 or newer."""
    found = f"{platform.python_implementation()} {'.'.join(map(str, version))}"
    if version < (3, 11):
        return bad(found, "install Python 3.11 or newer")
    return good(found)


def check_memory(available: int, needed: int | None) -> Finding:
    """The memory of the machine is enough to learn with the model."""
    found = f"{available / GIB:.1f} GiB available"
    if needed is None:
        return good(found)
    found += f", the model needs about {needed / GIB:.1f}"
    if available < needed:
        return bad(found, "end other programs, or choose a smaller --model")
    return good(found)


def check_sqlite(version: tuple[int, ...]) -> Finding:
    """New enough not to lose committed rows (the WAL-reset bug)."""
    try:
        require_safe_sqlite(version)
    except StoreUnusableError as error:
        return bad(str(error), "pip install 'pysqlite3>=0.6.1'")
    needed = ".".join(map(str, MINIMUM_SQLITE))
    return good(f"{'.'.join(map(str, version))}, {needed} or newer is needed")


def check_clock(now: datetime, newest: datetime | None) -> Finding:
    """It does not lag: reviews and snapshots depend on it."""
    found = now.isoformat(timespec="seconds")
    if now < EARLIEST or (newest is not None and now < newest):
        seen = "" if newest is None else f", but the data folder has seen {newest:%Y-%m-%d %H:%M}"
        return bad(found + seen, "set the machine's clock, and keep it set (NTP)")
    return good(found)


def available_memory() -> int:
    """Returns the bytes that this process may still use, within the limit of a container."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    available = int(found[1]) * 1024 if found else 0
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
    except OSError:
        return available
    return available if limit.strip() == "max" else min(available, int(limit) - int(used))
