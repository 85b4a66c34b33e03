"""The data folder and its disk."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from agent.doctor.findings import GIB, Finding, bad, good, warning
from agent.server.data.file_systems import (
    MEMORY_FILE_SYSTEMS,
    NETWORK_FILE_SYSTEMS,
    WHY_NOT_NETWORK,
    existing,
)
from agent.server.data.folder import is_held, is_open_to_others
from agent.server.data.upgrade import needs, survey

# The last three, one being written, and one that is kept for longer.
SNAPSHOTS_ON_DISK = 5
DATABASE_ROOM = GIB // 4
# Every accepted fact waits for a sync of the disk.
SLOW_SYNC_MS, UNUSABLE_SYNC_MS = 30.0, 500.0
SYNCS = 15


def check_folder(folder: Path) -> Finding:
    """It is a private, writable folder, or can be made."""
    nearest = existing(folder)
    if not nearest.is_dir():
        return bad(f"{nearest} is a file", "name another folder with --data")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return bad(
            f"{nearest} cannot be written to",
            "run the server as its owner, or name another folder with --data",
        )
    if nearest != folder.absolute():
        return good(f"{folder} is made at the first start")
    if is_open_to_others(folder):
        return bad(f"{folder} is open to other users", f"chmod 700 {folder}")
    return good(f"{folder}" + (", in use by a server" if is_held(folder) else ""))


def check_file_system(kind: str, *, allow_network: bool = False) -> Finding:
    """A disk of this machine."""
    if kind in NETWORK_FILE_SYSTEMS:
        found = f"{kind}, a network file system: {WHY_NOT_NETWORK}"
        remedy = "name a folder on a local disk with --data"
        return (warning if allow_network else bad)(found, remedy)
    if kind in MEMORY_FILE_SYSTEMS:
        return warning(
            f"{kind}, which is memory: all is lost when the machine is switched off",
            "name a folder on a disk with --data",
        )
    return good(kind)


def check_sync(milliseconds: float) -> Finding:
    """A sync is quick enough: `Teach` waits for one."""
    found = f"{milliseconds:.2f} ms for a sync"
    remedy = "use a faster disk (an SSD with its own power reserve syncs in well under 1 ms)"
    if milliseconds > UNUSABLE_SYNC_MS:
        return bad(found, remedy)
    if milliseconds > SLOW_SYNC_MS:
        return warning(f"{found}, and each fact waits for one", remedy)
    return good(found)


def check_space(free: int, weights_bytes: int | None) -> Finding:
    """Room for the database and the snapshots that are kept."""
    size = weights_bytes or 0
    found = f"{free / GIB:.1f} GiB free"
    remedy = "free some, or name a folder on a larger disk with --data"
    if free < size + DATABASE_ROOM:
        return bad(f"{found}, less than one snapshot needs", remedy)
    wanted = SNAPSHOTS_ON_DISK * size + DATABASE_ROOM
    if free < wanted:
        return warning(f"{found} of {wanted / GIB:.1f} for some snapshots", remedy)
    return good(found)


def check_upgrade(data: Path) -> Finding:
    """This release can serve the memory that there is, and the next one could too."""
    found = survey(data)
    if found is None:
        return good("there is no memory yet")
    needed = list(needs(found))
    summary = f"{found}. " + "; ".join(need.what for need in needed)
    remedy = "; ".join(need.remedy for need in needed if need.remedy)
    if any(need.serious for need in needed):
        return bad(summary, remedy)
    if remedy:
        return warning(summary, remedy)
    return good(summary.strip(" ."))


def sync_milliseconds(folder: Path) -> float:
    """Measures the median time of writing and syncing a page, as a commit does."""
    taken = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(SYNCS):
            file.write(bytes(4096))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


def free_bytes(folder: Path) -> int:
    """Returns the free bytes of the disk of a folder, which may not exist yet."""
    return shutil.disk_usage(existing(folder)).free


def newest_change(folder: Path) -> datetime | None:
    """Returns the time of the last change in a data folder; None if it is empty or missing."""
    if not folder.is_dir():
        return None
    times = [file.stat().st_mtime for file in folder.iterdir()]
    return datetime.fromtimestamp(max(times), UTC) if times else None
