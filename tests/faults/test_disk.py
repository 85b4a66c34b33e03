"""A disk that is full, or that fails to sync."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import failing_sync, full_disk, tracing
from tests.faults.findings import new_seed


@pytest.mark.skipif(bool(full_disk.why_not()), reason=full_disk.why_not() or "it works")
async def test_a_full_disk_loses_nothing_and_goes_on_once_it_is_enlarged(tmp_path: Path) -> None:
    (await full_disk.run(tmp_path, 1, new_seed())).require(1)


@pytest.mark.skipif(bool(tracing.why_not()), reason=tracing.why_not() or "it works")
def test_a_failing_sync_ends_the_process_before_it_acknowledges(tmp_path: Path) -> None:
    failing_sync.run(tmp_path, 2, new_seed()).require(2)
