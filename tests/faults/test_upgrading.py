"""Another release opens a memory in the middle of a forget, an erase or a rollback."""

from __future__ import annotations

from pathlib import Path

from tests.faults import upgrading
from tests.faults.findings import new_seed


async def test_an_upgrade_in_the_middle_of_an_operation_loses_and_keeps_nothing_wrongly(
    tmp_path: Path,
) -> None:
    """H1."""
    (await upgrading.run(tmp_path, 6, new_seed())).require(6)
