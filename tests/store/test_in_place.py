"""C1: nothing is acknowledged into a database that is no longer at its path."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memory_store.errors import StoreFailedError, StoreUnusableError
from memory_store.store import MemoryStore
from memory_store.writer import StoreThreads
from tests.store.builders import new_fact


def delete_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def replace_file(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


def delete_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


ENDS = [delete_folder, move_folder, replace_file, delete_log]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "memory.db"


@pytest.mark.parametrize("end", ENDS)
async def test_no_fact_is_accepted_into_a_file_that_is_gone(
    data: Path, end: Callable[[Path], None]
) -> None:
    fatal: list[StoreFailedError] = []
    threads = await StoreThreads.open(data, on_fatal=fatal.append)
    try:
        accepted = await threads.teach([new_fact("first?")])
        assert len(accepted) == 1
        end(data)
        for _ in range(2):  # the second is not even tried
            with pytest.raises(StoreFailedError, match=r"memory\.db.* was deleted, moved or"):
                await threads.teach([new_fact("lost?")])
        assert len(fatal) == 1
    finally:
        await threads.close()


@pytest.mark.parametrize("end", ENDS[:3])
async def test_a_clean_up_makes_no_database(data: Path, end: Callable[[Path], None]) -> None:
    fatal: list[StoreFailedError] = []
    threads = await StoreThreads.open(data, on_fatal=fatal.append)
    try:
        await threads.teach([new_fact()])
        end(data)
        replaced = data.read_bytes() if data.exists() else None
        with pytest.raises(StoreFailedError):
            await threads.empty_log()
        assert len(fatal) == 1
        assert (data.read_bytes() if data.exists() else None) == replaced
    finally:
        await threads.close()


async def test_what_replaces_the_database_at_the_last_moment_is_left_alone(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the writer's look and the opening for the clean-up."""
    fatal: list[StoreFailedError] = []
    threads = await StoreThreads.open(data, on_fatal=fatal.append)
    opened = MemoryStore.open

    def replaced_before(path: Path, **options: Any) -> MemoryStore:
        replace_file(path)
        return opened(path, **options)

    try:
        await threads.teach([new_fact()])
        monkeypatch.setattr(MemoryStore, "open", replaced_before)
        with pytest.raises(StoreFailedError, match="moved or replaced"):
            await threads.empty_log()
        assert len(fatal) == 1
    finally:
        monkeypatch.undo()
        await threads.close()


def test_what_must_exist_is_not_made(data: Path) -> None:
    with pytest.raises(StoreUnusableError, match="Cannot open"):
        MemoryStore.open(data, must_exist=True)
    assert not data.exists()
    MemoryStore.open(data).close()
    with MemoryStore.open(data, must_exist=True) as store:
        store.teach(new_fact())


async def test_moving_the_log_into_the_database_is_no_move_of_files(data: Path) -> None:
    fatal: list[StoreFailedError] = []
    threads = await StoreThreads.open(data, on_fatal=fatal.append, log_pages=1)
    try:
        for number in range(40):
            await threads.teach([new_fact(f"q{number}")])
        assert await threads.empty_log()
        await threads.write(partial(MemoryStore.teach, new=new_fact("after")))
        assert fatal == []
    finally:
        await threads.close()
