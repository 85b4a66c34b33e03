"""Real servers among peers that do not read or say nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import hostile_peers
from tests.faults.findings import new_seed


@pytest.mark.slow
async def test_a_server_among_hostile_peers_keeps_its_promises_and_ends(tmp_path: Path) -> None:
    """H2: with SIGTERM, while they hold all their connections."""
    (await hostile_peers.run(tmp_path, 1, new_seed())).require(1)
