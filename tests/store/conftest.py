from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memory_store.store import MemoryStore
from tests.store import integrity
from tests.store.builders import Clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def store(path: Path) -> Iterator[MemoryStore]:
    with MemoryStore.open(path, now=Clock()) as opened:
        yield opened
        assert integrity.problems(opened.connection) == []
