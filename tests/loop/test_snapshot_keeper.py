"""Which snapshots are kept, and when one is written."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.errors import LearnerUnavailableError, SnapshotError
from agent.server.loop.snapshot_keeper import (
    SnapshotKeeper,
    SnapshotSettings,
    kept_versions,
    recorded_in,
)
from agent.snapshots import WEIGHTS, folder_of, write_snapshot
from memory_store import meta
from memory_store.vocabulary import Update
from memory_store.writer import StoreThreads
from tests.loop.fake_learner import FakeLearner, Machine

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)


def at(*hours_ago: float) -> list[tuple[int, datetime]]:
    """Snapshots so many hours before noon; the version says in which order they were made."""
    return [(100 - int(hours), NOON - timedelta(hours=hours)) for hours in hours_ago]


@pytest.mark.parametrize(
    ("hours_ago", "last", "days", "kept"),
    [
        ((), 3, 7, ()),
        ((0, 1, 2, 3), 3, 0, (0, 1, 2)),
        ((0, 1, 2, 3), 0, 1, (0,)),
        ((0, 1, 2, 30, 31, 60), 2, 3, (0, 1, 30, 60)),  # the newest of each day
        ((0, 24, 48, 72), 1, 2, (0, 24)),
        ((0, 480, 481), 1, 2, (0, 480)),  # days on which there was none do not count
        ((0, 1), 0, 0, ()),
    ],
)
def test_the_newest_and_one_of_each_day_are_kept(
    hours_ago: Iterable[float], last: int, days: int, kept: Iterable[float]
) -> None:
    dated = at(*hours_ago)
    expected = {version for version, _ in at(*kept)}
    assert kept_versions(dated, last, days) == kept_versions(dated[::-1], last, days) == expected


# Nothing by itself, and no days: what a test does not ask for does not happen.
QUIET: dict[str, Any] = {"every_updates": 0, "every_seconds": 0.0, "keep_days": 0}


class Kept:
    """A keeper, and the stand-in that it snapshots."""

    def __init__(self, folder: Path, **settings: float) -> None:
        self.machine = Machine()
        self.learner: FakeLearner | None = FakeLearner(self.machine)
        rule = SnapshotSettings(folder=folder, **{**QUIET, **settings})
        self.keeper = SnapshotKeeper(rule, lambda: self.learner)

    async def reach(self, version: int, seconds: float = 0.0) -> None:
        """As the loop does when a version is served; waits for the snapshot that this begins."""
        assert self.learner is not None
        self.learner.version = version
        update = Update(
            model_version=version,
            fact_id="f",
            steps=(),
            digest_before="",
            digest_after="",
            algorithm="",
            seconds=seconds,
            applied_at=NOON,
        )
        self.keeper.updated(update)
        await self.keeper.finish()

    def versions(self) -> list[int]:
        return [manifest.model_version for manifest in self.keeper.listed()]


async def test_what_a_forget_removed_is_no_longer_the_newest(tmp_path: Path) -> None:
    kept = Kept(tmp_path, every_updates=3)
    await kept.reach(3)
    await kept.keeper.keep_only({1, 4})
    assert (kept.keeper.newest, kept.versions()) == (0, [])
    await kept.reach(4)  # so the next update brings one, however few came before
    assert (kept.keeper.newest, kept.versions()) == (4, [4])


async def test_one_is_written_after_so_many_updates(tmp_path: Path) -> None:
    kept = Kept(tmp_path, every_updates=3)
    for version in range(1, 8):
        await kept.reach(version)
    assert kept.versions() == [6, 3]
    # A restart counts from what is on disk.
    again = Kept(tmp_path, every_updates=3)
    await again.reach(8)
    assert again.versions() == [6, 3]


async def test_one_is_written_after_so_many_seconds_of_learning(tmp_path: Path) -> None:
    kept = Kept(tmp_path, every_seconds=10.0, keep_last=9)
    await kept.reach(1)  # what was replayed at the start is not known
    assert kept.versions() == [1]
    for version in range(2, 7):
        await kept.reach(version, seconds=4.0)
    assert kept.versions() == [4, 1]


async def test_zero_updates_means_only_when_asked(tmp_path: Path) -> None:
    kept = Kept(tmp_path, every_updates=0)
    await kept.reach(500)
    assert kept.versions() == []
    assert (await kept.keeper.create()).model_version == 500


async def test_a_tick_writes_one_if_something_was_learned_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path, every_updates=0)
    await kept.keeper.tick()
    assert kept.versions() == []
    await kept.reach(2)
    await kept.keeper.tick()
    assert kept.versions() == [2]
    monkeypatch.setattr(kept.keeper, "_create_quietly", None)
    await kept.keeper.tick()  # would call None


async def test_after_each_one_the_rule_is_applied(tmp_path: Path) -> None:
    kept = Kept(tmp_path, every_updates=1, keep_last=2)
    for version in (1, 2, 3):
        await kept.reach(version)
    assert kept.versions() == [3, 2]


async def test_damage_is_told_and_does_not_hide_the_others(tmp_path: Path) -> None:
    kept = Kept(tmp_path, every_updates=1)
    for version in (1, 2, 3):
        await kept.reach(version)
    (folder_of(tmp_path, 2) / WEIGHTS).write_text("x")
    (folder_of(tmp_path, 3) / "manifest.json").write_text("{")
    assert kept.versions() == [2, 1]
    found = await kept.keeper.verify()
    assert [version for version, _ in found] == [3, 2, 1]
    assert "manifest" in found[0][1]
    assert "torn" in found[1][1]
    assert found[2][1] == ""


@pytest.mark.parametrize("error", [LearnerUnavailableError("gone"), SnapshotError("full")])
async def test_a_failure_is_told_to_who_asked_and_ends_no_tick(
    tmp_path: Path, error: Exception
) -> None:
    kept = Kept(tmp_path, every_updates=1)
    kept.machine.faults["snapshot"] = [error, error, error]
    with pytest.raises(type(error)):
        await kept.keeper.create()
    await kept.reach(1)
    await kept.keeper.tick()
    assert kept.versions() == []
    kept.learner = None
    with pytest.raises(LearnerUnavailableError):
        await kept.keeper.create()


async def test_one_is_overdue_after_a_failure_and_after_a_while(tmp_path: Path) -> None:
    now = 0.0
    kept = Kept(tmp_path, overdue_seconds=60.0)
    kept.keeper._now = lambda: now
    await kept.reach(1)
    now = 60.0
    assert kept.keeper.overdue() == ""
    now = 61.0
    assert kept.keeper.overdue() == "version 1 waits, the newest is of 0"
    kept.machine.faults["snapshot"] = [SnapshotError("the disk is full")]
    await kept.keeper.tick()
    assert kept.keeper.overdue() == "the last one failed: the disk is full"
    await kept.keeper.tick()
    assert (kept.keeper.newest, kept.keeper.overdue()) == (1, "")
    now = 1000.0
    assert kept.keeper.overdue() == ""  # nothing waits


# --- H1: the head has a snapshot when the server ends ---------------------------------------------


async def test_the_head_is_held_once_and_only_if_it_is_not_yet(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    learner = kept.learner
    assert learner is not None
    learner.version = 7
    # Twice at once, as when the server is told to stop and its update ends at once.
    await asyncio.gather(kept.keeper.hold(7, "base"), kept.keeper.hold(7, "base"))
    assert kept.versions() == [7]
    kept.machine.faults["snapshot"].append(SnapshotError("it must not be written again"))
    await kept.keeper.hold(7, "base")
    assert kept.machine.faults["snapshot"]  # nobody asked


@pytest.mark.parametrize("damage", ["other history", "torn"])
async def test_a_snapshot_that_cannot_be_of_the_head_is_replaced(
    tmp_path: Path, damage: str
) -> None:
    kept = Kept(tmp_path)
    assert kept.learner is not None
    kept.learner.version = 7
    await kept.keeper.hold(7, "base")
    if damage == "torn":
        (folder_of(tmp_path, 7) / WEIGHTS).write_text("")
    else:
        kept.learner.served.append("f")
    await kept.keeper.hold(7, kept.learner.digest)
    assert (folder_of(tmp_path, 7) / WEIGHTS).read_text() == kept.learner.digest


async def test_what_was_just_written_survives_newer_ones_of_a_lost_future(tmp_path: Path) -> None:
    kept = Kept(tmp_path, keep_last=1)
    assert kept.learner is not None
    for version in (9, 4):  # a database of before 9 was restored
        kept.learner.version = version
        await kept.keeper.hold(version, "base")
    assert 4 in kept.versions()


async def test_a_head_that_cannot_be_held_does_not_keep_the_server(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.machine.faults["snapshot"].append(SnapshotError("the disk is full"))
    await kept.keeper.hold(7, "base")
    assert kept.versions() == []


async def test_who_stops_waiting_leaves_one_writer_that_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Low: a second writer began while the first, given up after 10 s, was still writing."""
    may_end, writing, most = asyncio.Event(), 0, 0
    write = FakeLearner.snapshot

    async def slow(self: FakeLearner, folder: Path) -> tuple[int, int]:
        nonlocal writing, most
        writing += 1
        most = max(most, writing)
        await may_end.wait()
        writing -= 1
        return await write(self, folder)

    monkeypatch.setattr(FakeLearner, "snapshot", slow)
    kept = Kept(tmp_path)
    assert kept.learner is not None
    kept.learner.version = 7
    for waiting in (kept.keeper.hold(7, "base"), kept.keeper.create(), kept.keeper.hold(7, "base")):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiting, 0.01)
    removing = asyncio.create_task(kept.keeper.keep_only(()))
    finishing = asyncio.create_task(kept.keeper.finish())
    await asyncio.sleep(0.01)
    assert not removing.done()  # else what is being written would stay
    assert not finishing.done()
    may_end.set()
    await asyncio.gather(removing, finishing)
    assert (most, kept.versions()) == (1, [])


# --- Low: the history of the ledger, and pruning beside learning ----------------------------------


class WithLedger(Kept):
    """A keeper beside a ledger that has some versions, with the digest `here` but for one."""

    def __init__(self, folder: Path, ledger: dict[int, str], **settings: float) -> None:
        super().__init__(folder, **settings)
        self.ledger = ledger

        async def recorded(versions: Sequence[int]) -> dict[int, str]:
            return {version: ledger[version] for version in versions if version in ledger}

        rule = SnapshotSettings(folder=folder, **{**QUIET, **settings})
        self.keeper = SnapshotKeeper(rule, lambda: self.learner, recorded=recorded)


def snapshot_of(folder: Path, version: int, digest: str) -> None:
    write_snapshot(
        folder,
        lambda file: file.touch(),
        model_version=version,
        digest=digest,
        base_digest="",
        environment={},
    )


async def test_beside_a_restored_ledger_its_lost_future_neither_counts_nor_prunes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Low: snapshots newer than a restored ledger were "newest", and good ones were pruned."""
    for version in (1, 2, 3):
        snapshot_of(tmp_path, version, "base")
    for version in (4, 90, 91, 92):  # 4 was learned anew
        snapshot_of(tmp_path, version, "lost future")
    kept = WithLedger(tmp_path, dict.fromkeys((1, 2, 3, 4, 5, 6), "base"), keep_last=3)
    await kept.keeper.look()
    assert kept.keeper.newest == 3
    assert "92, 91, 90, 4" in caplog.text
    assert await kept.keeper.prune() == []
    await kept.reach(5)
    await kept.keeper.tick()
    assert kept.versions() == [92, 91, 90, 5, 4, 3, 2]
    assert kept.keeper.newest == 5
    problems = dict(await kept.keeper.verify())
    assert "another history" in problems[92]
    assert problems[5] == ""


async def test_the_base_model_is_of_every_history(tmp_path: Path) -> None:
    """Low: the ledger has no row of version 0."""
    store = await StoreThreads.open(tmp_path / "memory.db")
    await store.write(
        lambda store: meta.bind_model(store.connection, name="fake", base_digest="base")
    )
    snapshot_of(tmp_path / "snapshots", 0, "base")
    rule = SnapshotSettings(folder=tmp_path / "snapshots", **QUIET)
    keeper = SnapshotKeeper(rule, lambda: None, recorded=recorded_in(store))
    assert all("another history" not in problem for _, problem in await keeper.verify())
    await store.close()


async def test_a_forget_leaves_no_snapshot_of_another_history_or_that_cannot_be_read(
    tmp_path: Path,
) -> None:
    """They may hold the fact, whatever their version."""
    for version, digest in ((1, "base"), (2, "lost future"), (3, "base")):
        snapshot_of(tmp_path, version, digest)
    (folder_of(tmp_path, 3) / "manifest.json").write_text("{")
    kept = WithLedger(tmp_path, dict.fromkeys((1, 2, 3), "base"))
    await kept.keeper.keep_only({1, 2, 3})
    assert [folder.name for folder in tmp_path.iterdir()] == [folder_of(tmp_path, 1).name]
    assert kept.keeper.newest == 1


async def test_pruning_leaves_the_loop_to_others_and_waits_for_who_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Low: it ran on the event loop, and two at once collided."""
    threads = set()
    remove = shutil.rmtree

    def watched(path: Path, **options: Any) -> None:
        threads.add(threading.current_thread())
        remove(path, **options)

    kept = WithLedger(tmp_path, dict.fromkeys(range(20), "base"), keep_last=1)
    for version in range(1, 10):
        snapshot_of(tmp_path, version, "base")
    monkeypatch.setattr(shutil, "rmtree", watched)
    async with kept.keeper._writing:
        pruning = [asyncio.create_task(kept.keeper.prune()) for _ in range(3)]
        await asyncio.sleep(0)  # they have begun
        assert len(kept.versions()) == 9
    assert sorted(await asyncio.gather(*pruning)) == [[], [], list(range(8, 0, -1))]
    assert threading.main_thread() not in threads


async def test_what_is_only_linked_to_is_no_snapshot(tmp_path: Path) -> None:
    """Nor is a folder of another name: what they lead to is somebody else's."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    snapshot_of(other, 1, "base")
    mine.mkdir()
    folder_of(mine, 1).symlink_to(folder_of(other, 1))
    (mine / ".unfinished-link").symlink_to(other)
    (mine / "2024").mkdir()
    kept = Kept(mine, keep_last=0)
    await kept.keeper.prune()
    await kept.keeper.keep_only(())
    assert folder_of(other, 1).is_dir()
    assert (mine / "2024").is_dir()
