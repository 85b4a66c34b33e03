"""C1: which memory a folder is, and that an erase removes the memory's own backups and no more.

Restoring, copying, moving, and serving a backup are everyday work; each is done here with real
files. `tests.faults.copies` does them in every order.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest

from agent.errors import BackupOvertakenError, ConfigError, InvalidFactError
from agent.server.data.backups import Outcome, newest_backup, remove_backup
from agent.server.data.folder import held
from agent.server.data.identity import MARKER, FolderKind, overlap, read_marker, settle
from agent.server.loop.undo.erasure import remove_text
from memory_store import identity, undo
from memory_store.connection import Connection
from memory_store.places import list_places
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind
from tests.served_folder import SNAPSHOT_FILES, ServedFolder, served, snapshot_in


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its content; locks aside, which looking makes."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != "lock"
    }


async def id_of(data: Path) -> str:
    async with served(data) as memory:
        return memory.memory_id


# --- Which memory a folder is ---------------------------------------------------------------------


async def test_a_memory_keeps_its_id_and_its_backups(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as memory:
        first = memory.memory_id
        await memory.back_up(tmp_path / "backup")
    async with served(tmp_path / "data") as memory:
        assert memory.memory_id == first
        assert await memory.known_backups() == [str(tmp_path / "backup")]
    marker = read_marker(tmp_path / "data")
    assert marker is not None
    assert (marker.kind, marker.memory_id) == (FolderKind.MEMORY, first)


async def test_a_folder_that_is_moved_or_renamed_is_the_same_memory(tmp_path: Path) -> None:
    first = await id_of(tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").rename(tmp_path / "elsewhere" / "moved")
    assert await id_of(tmp_path / "elsewhere" / "moved") == first


async def test_a_folder_whose_owner_or_mode_is_changed_is_the_same_memory(tmp_path: Path) -> None:
    first = await id_of(tmp_path / "data")
    for file in (tmp_path / "data").iterdir():
        file.chmod(0o600)
        os.chown(file, os.getuid(), os.getgid())
    assert await id_of(tmp_path / "data") == first


async def test_a_folder_reached_through_a_link_is_the_same_memory(tmp_path: Path) -> None:
    first = await id_of(tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert await id_of(tmp_path / "link") == first


@pytest.mark.parametrize("links", [False, True])
async def test_a_copy_is_another_memory_with_no_backups(tmp_path: Path, links: bool) -> None:
    async with served(tmp_path / "data") as memory:
        first = memory.memory_id
        await memory.back_up(tmp_path / "backup")
    shutil.copytree(tmp_path / "data", tmp_path / "copy", symlinks=links)
    assert newest_backup(tmp_path / "copy") == tmp_path / "backup"
    async with served(tmp_path / "copy") as copy:
        assert copy.memory_id != first
        assert await copy.known_backups() == []
        assert newest_backup(tmp_path / "copy") is None
        second = copy.memory_id
    assert await id_of(tmp_path / "copy") == second
    assert await id_of(tmp_path / "data") == first


async def test_a_copy_in_the_place_of_its_origin_is_another_memory(tmp_path: Path) -> None:
    """`cp -r data copy; rm -r data; mv copy data`: the path is the same."""
    first = await id_of(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "copy").rename(tmp_path / "data")
    assert await id_of(tmp_path / "data") != first


@pytest.mark.parametrize("restore", ["serve it", "serve a copy", "in its origin's place"])
async def test_a_backup_that_is_served_is_another_memory(tmp_path: Path, restore: str) -> None:
    async with served(tmp_path / "data") as memory:
        fact_id = await memory.teach("Sky?")
        await memory.back_up(tmp_path / "earlier")
        await memory.back_up(tmp_path / "backup")
        marker = read_marker(tmp_path / "backup")
        assert marker is not None
        assert (marker.kind, marker.memory_id) == (FolderKind.BACKUP, memory.memory_id)
        assert set(marker.files) == {"memory.db", *SNAPSHOT_FILES}
    place = tmp_path / "backup"
    if restore == "serve a copy":
        place = Path(shutil.copytree(place, tmp_path / "restored"))
    elif restore == "in its origin's place":
        shutil.rmtree(tmp_path / "data")
        place = Path(shutil.copytree(place, tmp_path / "data"))
    before = tree(tmp_path / "earlier")
    async with served(place) as restored:
        assert restored.memory_id != memory.memory_id
        assert await restored.known_backups() == []
        assert (await restored.store.read(lambda store: store.fact(fact_id))).question == "Sky?"
        left = await restored.erase(fact_id)
        assert f"of memory {memory.memory_id[:8]}" in left  # whose backups hold it, and stay
    assert tree(tmp_path / "earlier") == before


async def test_what_was_taught_to_a_copy_is_not_said_to_be_in_its_origin(tmp_path: Path) -> None:
    await id_of(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    async with served(tmp_path / "copy") as copy:
        assert await copy.erase(await copy.teach("Sky?")) == ""


async def test_a_database_put_into_another_memory_s_folder_is_another_memory(
    tmp_path: Path,
) -> None:
    ids = [await id_of(tmp_path / name) for name in ("one", "two")]
    shutil.copy(tmp_path / "one" / "memory.db", tmp_path / "two" / "memory.db")
    assert await id_of(tmp_path / "two") not in ids


async def test_a_folder_without_marker_is_another_memory(tmp_path: Path) -> None:
    first = await id_of(tmp_path / "data")
    for content in ("", "{}", "[]", '{"kind": "other", "memory_id": "x"}', "\0"):
        (tmp_path / "data" / MARKER).write_text(content)
        second = await id_of(tmp_path / "data")
        assert second != first
        first = second
    (tmp_path / "data" / MARKER).unlink()
    assert await id_of(tmp_path / "data") != first


async def test_a_start_that_is_cut_off_after_the_marker_comes_to_an_id(tmp_path: Path) -> None:
    first = await id_of(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    with MemoryStore.open(tmp_path / "copy" / "memory.db") as store, store.transaction():
        settle(store, tmp_path / "copy")
        store.connection.execute("ROLLBACK")
        store.connection.execute("BEGIN")
    second = await id_of(tmp_path / "copy")
    assert second != first
    assert await id_of(tmp_path / "copy") == second


async def test_a_memory_of_an_older_release_keeps_its_list_but_nothing_on_it_is_removed(
    tmp_path: Path,
) -> None:
    """Its backups have no marker, so nobody can say that they are this memory's."""
    async with served(tmp_path / "data") as memory:
        await memory.back_up(tmp_path / "backup")
        fact_id = await memory.teach("Sky?")
    (tmp_path / "backup" / MARKER).unlink()
    connection = Connection(tmp_path / "data" / "memory.db")
    connection.execute("DELETE FROM meta WHERE key LIKE 'memory_%' OR key = 'erasures'")
    connection.close()
    (tmp_path / "data" / MARKER).unlink()
    before = tree(tmp_path / "backup")
    async with served(tmp_path / "data") as memory:
        left = await memory.erase(fact_id)
        assert f"{tmp_path / 'backup'}: {Outcome.UNMARKED}" in left
        assert newest_backup(tmp_path / "data") == tmp_path / "backup"
    assert tree(tmp_path / "backup") == before


# --- What a start refuses -------------------------------------------------------------------------


async def test_a_memory_without_its_database_does_not_start_as_an_empty_one(
    tmp_path: Path,
) -> None:
    await id_of(tmp_path / "data")
    for file in (tmp_path / "data").glob("memory.db*"):
        file.unlink()
    with pytest.raises(ConfigError, match=r"memory\.db is missing.*restore a backup"):
        await id_of(tmp_path / "data")
    assert not (tmp_path / "data" / "memory.db").exists()
    (tmp_path / "data" / MARKER).unlink()
    await id_of(tmp_path / "data")  # meant


@pytest.mark.parametrize("link", ["symbolic", "hard"])
async def test_two_folders_with_one_database_are_refused(tmp_path: Path, link: str) -> None:
    await id_of(tmp_path / "data")
    (tmp_path / "copy").mkdir(mode=0o700)
    make = os.link if link == "hard" else os.symlink
    make(tmp_path / "data" / "memory.db", tmp_path / "copy" / "memory.db")
    with pytest.raises(ConfigError, match="link"):
        await id_of(tmp_path / "copy")


async def test_two_memories_never_share_snapshots(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "large disk").mkdir()
    (tmp_path / "data" / "snapshots").symlink_to(tmp_path / "large disk")
    first = await id_of(tmp_path / "data")
    assert await id_of(tmp_path / "data") == first
    shutil.copytree(tmp_path / "data", tmp_path / "copy", symlinks=True)
    with pytest.raises(ConfigError, match=r"belongs to another memory.*remove the link"):
        await id_of(tmp_path / "copy")
    assert await id_of(tmp_path / "data") == first
    (tmp_path / "copy" / "snapshots").unlink()
    assert await id_of(tmp_path / "copy") != first


@pytest.mark.parametrize("committed", [False, True])
async def test_a_first_start_that_is_killed_leaves_its_snapshots_to_the_next(
    tmp_path: Path, committed: bool
) -> None:
    """Low: they were claimed by an id that no memory had, and every later start was refused."""
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "large disk").mkdir()
    (tmp_path / "data" / "snapshots").symlink_to(tmp_path / "large disk")
    with MemoryStore.open(tmp_path / "data" / "memory.db") as store, store.transaction():
        settle(store, tmp_path / "data")
        if not committed:
            store.connection.execute("ROLLBACK")
            store.connection.execute("BEGIN")
    memory_id = await id_of(tmp_path / "data")
    claimed = read_marker(tmp_path / "large disk")
    assert claimed is not None
    assert (claimed.kind, claimed.memory_id) == (FolderKind.SNAPSHOTS, memory_id)


# --- What an erase removes ------------------------------------------------------------------------


async def test_an_erase_removes_its_backups_and_nothing_else_in_them(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as memory:
        fact_id = await memory.teach("Sky?")
        await memory.back_up(tmp_path / "backup")
        await memory.back_up(tmp_path / "second")
        (tmp_path / "second" / "notes.txt").write_text("mine")
        (tmp_path / "second" / "snapshots" / "notes.txt").write_text("mine")
        assert await memory.erase(fact_id) == ""
        assert not (tmp_path / "backup").exists()
        assert set(tree(tmp_path / "second")) == {"notes.txt", "snapshots/notes.txt"}
        assert await memory.known_backups() == []
        assert tree(tmp_path / "data")["memory.db"]


async def test_a_backup_knows_no_backups(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as memory:
        await memory.back_up(tmp_path / "first")
        await memory.back_up(tmp_path / "second")
    for name in ("first", "second"):
        with MemoryStore.open(tmp_path / name / "memory.db", read_only=True) as store:
            assert list_places(store) == []
            assert identity.place(store.connection) is None


async def test_a_served_backup_does_not_erase_itself(tmp_path: Path) -> None:
    """As first seen: the backup listed itself, and was the folder that was served."""
    async with served(tmp_path / "data") as memory:
        fact_id = await memory.teach("Sky?")
        await memory.back_up(tmp_path / "backup")
    async with served(tmp_path / "backup") as restored:
        await restored.erase(fact_id)
        await restored.teach("Gem?")
    with MemoryStore.open(tmp_path / "backup" / "memory.db", read_only=True) as store:
        assert [fact.question for fact in store.facts()] == ["", "Gem?"]


@pytest.mark.parametrize("in_use", [False, True])
async def test_the_origin_does_not_erase_a_backup_that_was_served(
    tmp_path: Path, in_use: bool
) -> None:
    async with served(tmp_path / "data") as memory:
        fact_id = await memory.teach("Sky?")
        await memory.back_up(tmp_path / "backup")
        async with served(tmp_path / "backup"):
            left = await memory.erase(fact_id) if in_use else ""
        left = left or await memory.erase(fact_id)
        assert f"{tmp_path / 'backup'}: {Outcome.OTHER}" in left
    await id_of(tmp_path / "backup")


async def test_a_backup_that_is_held_is_left_and_reported(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as memory:
        fact_id = await memory.teach("Sky?")
        await memory.back_up(tmp_path / "backup")
        before = tree(tmp_path / "backup")
        with held(tmp_path / "backup"):
            assert f"{tmp_path / 'backup'}: {Outcome.IN_USE}" in await memory.erase(fact_id)
        assert tree(tmp_path / "backup") == before
        assert await memory.known_backups() == [str(tmp_path / "backup")]


async def test_what_took_a_backup_s_place_is_left(tmp_path: Path) -> None:
    async with served(tmp_path / "other") as other:
        await other.teach("Gem?")
        await other.back_up(tmp_path / "other's")
    async with served(tmp_path / "data") as memory:
        fact_id = await memory.teach("Sky?")
        places = [tmp_path / name for name in ("memory", "backup", "database", "damaged", "link")]
        for place in places:
            await memory.back_up(place)
        for place, replacement in zip(places, ("other", "other's"), strict=False):
            shutil.rmtree(place)
            shutil.copytree(tmp_path / replacement, place)
        shutil.copy(tmp_path / "other" / "memory.db", places[2] / "memory.db")
        (places[3] / "memory.db").write_bytes(b"damaged" * 1000)
        shutil.rmtree(places[4])
        places[4].symlink_to(tmp_path / "other", target_is_directory=True)
        before = [tree(place) for place in places]
        left = await memory.erase(fact_id)
        assert left.count(Outcome.OTHER) == left.count(Outcome.UNREADABLE) == 1
        assert all(str(place) in left for place in places)
        assert [tree(place) for place in places] == before


async def test_a_backup_reached_through_a_link_is_removed_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    async with served(tmp_path / "data") as memory:
        fact_id = await memory.teach("Sky?")
        await memory.back_up(tmp_path / "link" / "backup")
        assert await memory.known_backups() == [str(tmp_path / "disk" / "backup")]
        assert await memory.erase(fact_id) == ""
    assert list((tmp_path / "disk").iterdir()) == []


async def test_links_in_a_backup_lead_no_removal_out_of_it(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as memory:
        fact_id = await memory.teach("Sky?")
        await memory.back_up(tmp_path / "backup")
        snapshots = tmp_path / "backup" / "snapshots"
        snapshots.rename(tmp_path / "kept")
        snapshots.symlink_to(tmp_path / "kept")
        before = tree(tmp_path / "kept")
        await memory.erase(fact_id)
        assert tree(tmp_path / "kept") == before
        assert not (tmp_path / "backup" / "memory.db").exists()


async def test_nested_backups_and_memories_keep_what_is_theirs(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as memory:
        fact_id = await memory.teach("Sky?")
        await memory.back_up(tmp_path / "outer")
        await memory.back_up(tmp_path / "outer" / "inner")
        async with served(tmp_path / "outer" / "memory") as other:
            await other.teach("Gem?")
            await other.back_up(tmp_path / "outer" / "inner" / "other's")
        before = {name: tree(tmp_path / "outer" / name) for name in ("memory", "inner/other's")}
        assert await memory.erase(fact_id) == ""
        assert {name: tree(tmp_path / "outer" / name) for name in before} == before
        assert not (tmp_path / "outer" / "memory.db").exists()
        assert not (tmp_path / "outer" / "inner" / "memory.db").exists()


async def test_no_backup_is_written_into_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")
    async with served(tmp_path / "data") as memory:
        for target in ("data/backup", "data/new/backup", "link/backup"):
            with pytest.raises(InvalidFactError, match="inside the data folder"):
                await memory.back_up(tmp_path / target)
        assert await memory.known_backups() == []


async def test_its_own_folder_and_those_above_and_below_it_are_never_removed(
    tmp_path: Path,
) -> None:
    """Wherever a list leads: a backup may have been moved into the data folder, or around it."""
    async with served(tmp_path / "data") as memory:
        fact_id = await memory.teach("Sky?")
        await memory.back_up(tmp_path / "backup")
        shutil.copytree(tmp_path / "backup", tmp_path / "data" / "backup")
        shutil.copytree(tmp_path / "backup", tmp_path, dirs_exist_ok=True)
        (tmp_path / "link").symlink_to(tmp_path / "data")
        shutil.rmtree(tmp_path / "backup")
        own = [tmp_path / "data", tmp_path, tmp_path / "data" / "backup", tmp_path / "link"]
        for place in own:
            await memory.backups._record(place)
        before = [set(tree(place)) for place in own]
        left = await memory.erase(fact_id)
        assert Outcome.OWN in left
        assert all(str(place) in left for place in own)
        assert [set(tree(place)) for place in own] == before


async def test_a_backup_that_is_not_there_is_reported_once(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as memory:
        facts = [await memory.teach(question) for question in ("Sky?", "Gem?")]
        for number in range(7):
            await memory.back_up(tmp_path / f"backup-{number}")
            (tmp_path / f"backup-{number}").rename(tmp_path / f"moved-{number}")
        left = await memory.erase(facts[0])
        assert "and 2 more: not there any more" in left
        assert await memory.erase(facts[1]) == ""
    assert len(list(tmp_path.glob("moved-*"))) == 7


def test_a_folder_overlaps_with_itself_and_what_is_above_and_below(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "link").symlink_to(below)
    assert overlap(below, tmp_path / "a")
    assert overlap(tmp_path / "a", below)
    assert overlap(tmp_path / "c" / "link", tmp_path / "a")
    assert not overlap(tmp_path / "c", below)


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a\nb", "a\n", "a\rb", "a\u2028b", "a\x00b", "a\x1bb"])
async def test_a_name_that_a_list_of_lines_cannot_hold_is_refused(
    tmp_path: Path, name: str
) -> None:
    """Low: `backups.txt` and a newline in a name."""
    async with served(tmp_path / "data") as memory:
        with pytest.raises(InvalidFactError, match="control characters"):
            await memory.back_up(tmp_path / name)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
        target = tmp_path / "naïve 備份\u00a0name"
        await memory.back_up(target)
        assert newest_backup(tmp_path / "data") == target


# --- H4: an erase during a backup -----------------------------------------------------------------


class Interrupted:
    """A backup that stops while it copies snapshots, until it is let go."""

    def __init__(self, memory: ServedFolder, target: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._copying, self._go_on = asyncio.Event(), threading.Event()
        self.copies = 0
        self.task = asyncio.create_task(memory.back_up(target, self._copy))

    def _copy(self, folder: Path) -> None:
        snapshot_in(folder)
        self.copies += 1
        self._loop.call_soon_threadsafe(self._copying.set)
        assert self._go_on.wait(30)

    async def copying(self) -> None:
        """Returns when the database was copied."""
        await self._copying.wait()

    async def finish(self) -> int:
        """Lets it go on to its end."""
        self._go_on.set()
        return await self.task


async def test_a_backup_never_keeps_text_that_was_erased_before_it_was_finished(
    tmp_path: Path,
) -> None:
    """H4."""
    async with served(tmp_path / "data") as memory:
        fact_id = await memory.teach("Is the firmament Blipland's?")
        backup = Interrupted(memory, tmp_path / "backup")
        await backup.copying()
        assert await memory.erase(fact_id) == ""
        await backup.finish()
        assert backup.copies == 2
        assert b"Blipland" not in b"".join(tree(tmp_path / "backup").values())
        assert await memory.known_backups() == [str(tmp_path / "backup")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "data"]


async def test_a_backup_that_is_overtaken_again_and_again_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H4."""
    async with served(tmp_path / "data") as memory:
        loop = asyncio.get_running_loop()

        def erase_meanwhile(folder: Path) -> None:
            async def erase() -> None:
                await memory.erase(await memory.teach("Sky?"))

            asyncio.run_coroutine_threadsafe(erase(), loop).result(30)

        with pytest.raises(BackupOvertakenError, match="try again"):
            await memory.back_up(tmp_path / "backup", erase_meanwhile)
        assert await memory.known_backups() == []
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


async def test_a_backup_whose_caller_has_gone_is_finished(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as memory:
        backup = Interrupted(memory, tmp_path / "backup")
        await backup.copying()
        backup.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await backup.finish()
        await asyncio.gather(*memory.backups._tasks)
        assert (tmp_path / "backup" / "memory.db").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "data"]


async def test_what_a_crash_left_of_a_backup_goes_with_the_next_erase(tmp_path: Path) -> None:
    """H4: the text is in it, under a name that only the memory knows."""
    async with served(tmp_path / "data") as memory:
        fact_id = await memory.teach("Is the firmament Blipland's?")
        backup = Interrupted(memory, tmp_path / "backup")
        await backup.copying()
        [unfinished] = tmp_path.glob(".unfinished-*")
        kept = tree(unfinished)
        await backup.finish()
        # As if the process had died there.
        for name, content in kept.items():
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            (unfinished / name).write_bytes(content)
        await memory.backups._record(unfinished)
        assert await memory.erase(fact_id) == ""
        assert not unfinished.exists()


async def test_an_erase_that_was_cut_off_looks_for_the_text_again(tmp_path: Path) -> None:
    """M4: after the fact's own rows were erased, its text is kept until the search is over."""
    async with served(tmp_path / "data") as memory:
        fact_id = await memory.teach("Is the firmament Blipland's?")
        note = "asked 'Is the firmament Blipland's?' it died"
        await memory.store.write(lambda store: store.record_event(EventKind.LEARNER_DOWN, note, 0))
        operation = await memory.store.write(
            partial(undo.request_forget, fact_id=fact_id, erase=True)
        )
        await memory.store.write(partial(undo.finish_if_not_held, operation_id=operation.id))
    async with served(tmp_path / "data") as memory:
        assert await memory.erase(fact_id) == ""  # as the loop does, which finds it open
    assert b"Blipland" not in b"".join(tree(tmp_path / "data").values())


def test_a_removal_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    async def prepare() -> str:
        async with served(tmp_path / "data") as memory:
            await memory.back_up(tmp_path / "backup")
            return memory.memory_id

    memory_id = asyncio.run(prepare())
    (tmp_path / "backup" / "memory.db").unlink()
    outcome = remove_backup(tmp_path / "backup", memory_id, tmp_path / "data")
    assert outcome is Outcome.REMOVED
    assert not (tmp_path / "backup").exists()


async def test_what_is_left_is_reported_by_the_operation_however_early_the_text_went(
    tmp_path: Path,
) -> None:
    """M4: the text goes with the request, before the weights; what is left is told at the end."""
    async with served(tmp_path / "data") as memory:
        other = await memory.teach("Who lives in Blipland?", "the Zanzibari")
        fact_id = await memory.teach("Where is it?", "Zanzibari")
        await memory.back_up(tmp_path / "backup")
        (tmp_path / "backup").rename(tmp_path / "moved")
        await memory.store.write(partial(undo.request_forget, fact_id=fact_id, erase=True))
        for _ in range(2):  # as long as the weights are being rebuilt
            await remove_text(memory.store, memory.backups)
        left = await memory.erase(fact_id)
        assert f"its text stays in 1 other fact ({other})" in left
        assert f"{tmp_path / 'backup'}: {Outcome.MISSING}" in left
