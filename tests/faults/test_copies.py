"""C1: only a memory's own backups are ever removed, in whatever order things come."""

from __future__ import annotations

from pathlib import Path

from tests.faults import copies
from tests.faults.findings import new_seed


async def test_an_erase_removes_the_memory_s_own_backups_and_no_more(tmp_path: Path) -> None:
    (await copies.run(tmp_path, 15, new_seed())).require(15)
