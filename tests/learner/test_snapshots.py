"""Snapshots on disk: whole or not at all, and whatever is damaged is noticed."""

from __future__ import annotations

import errno
import hashlib
import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import SnapshotError
from agent.learner.checkpoint import prepare_snapshot, restore_snapshot
from agent.learner.core import Learner
from agent.learner.digest import weights_digest
from agent.learner.training.update import trained_parameters
from agent.models.loading import load
from agent.snapshots import (
    MANIFEST,
    UNFINISHED,
    WEIGHTS,
    SnapshotManifest,
    folder_of,
    read_manifest,
    remove_unfinished,
    snapshot_folders,
    verify_snapshot,
    write_snapshot,
)

CONTENT = b"weights" * 1000


@pytest.fixture
def snapshots(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


def write(
    snapshots: Path, version: int = 7, save: Callable[[Path], object] | None = None
) -> SnapshotManifest:
    def save_content(file: Path) -> None:
        file.write_bytes(CONTENT)

    def saving(file: Path) -> None:
        (save or save_content)(file)

    return write_snapshot(
        snapshots,
        saving,
        model_version=version,
        digest="d7",
        base_digest="d0",
        environment={"torch": "2.9"},
    )


def test_what_was_written_is_verified_and_described(snapshots: Path) -> None:
    manifest = write(snapshots)
    folder = snapshots / "000000000007"
    assert folder == folder_of(snapshots, 7)
    assert read_manifest(folder) == verify_snapshot(folder) == manifest
    assert (manifest.model_version, manifest.digest, manifest.base_digest) == (7, "d7", "d0")
    assert manifest.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert manifest.size == len(CONTENT)
    assert manifest.environment == {"torch": "2.9"}
    assert manifest.created_at.endswith("+00:00")
    assert sorted(file.name for file in folder.iterdir()) == [MANIFEST, WEIGHTS]
    assert folder.stat().st_mode & 0o077 == 0  # weights hold what was taught


def test_folders_come_newest_first_and_only_snapshots(snapshots: Path) -> None:
    assert list(snapshot_folders(snapshots)) == []
    for version in (9, 10, 2):
        write(snapshots, version)
    (snapshots / "notes").mkdir()
    (snapshots / "000000000011").write_text("a file")
    assert [version for version, _ in snapshot_folders(snapshots)] == [10, 9, 2]


def test_a_version_written_again_replaces_a_damaged_one(snapshots: Path) -> None:
    write(snapshots)
    folder = folder_of(snapshots, 7)
    (folder / WEIGHTS).write_bytes(b"")
    (folder / "more").write_text("x")
    manifest = write(snapshots)
    assert verify_snapshot(folder) == manifest
    assert not (folder / "more").exists()


def flip(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])


def lose_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


@pytest.mark.parametrize("damage", [flip, cut, lose_weights])
def test_damaged_weights_are_found_by_reading_them(
    snapshots: Path, damage: Callable[[Path], None]
) -> None:
    write(snapshots)
    folder = folder_of(snapshots, 7)
    damage(folder)
    assert read_manifest(folder).model_version == 7
    with pytest.raises(SnapshotError, match="000000000007"):
        verify_snapshot(folder)


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"model_version": 7}', "\xff"])
def test_a_manifest_that_cannot_be_read_is_an_error_of_ours(
    snapshots: Path, text: str | None
) -> None:
    write(snapshots)
    manifest = folder_of(snapshots, 7) / MANIFEST
    manifest.unlink()
    if text is not None:
        manifest.write_bytes(text.encode("latin-1"))
    with pytest.raises(SnapshotError, match="no readable manifest"):
        read_manifest(folder_of(snapshots, 7))


def test_a_snapshot_under_another_name_is_refused(snapshots: Path) -> None:
    write(snapshots)
    renamed = folder_of(snapshots, 7).rename(folder_of(snapshots, 8))
    for read in (read_manifest, verify_snapshot):
        with pytest.raises(SnapshotError, match="says it is version 7"):
            read(renamed)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_is_an_error_of_ours_and_leaves_nothing(snapshots: Path, number: int) -> None:
    old = write(snapshots)

    def full(file: Path) -> None:
        file.write_bytes(CONTENT[:100])
        raise OSError(number, "the disk")

    for version in (7, 8):
        with pytest.raises(SnapshotError, match=f"version {version} could not be written"):
            write(snapshots, version, full)
    assert verify_snapshot(folder_of(snapshots, 7)) == old  # the one that was there is kept
    assert [folder.name for folder in snapshots.iterdir()] == ["000000000007"]


def test_what_a_crash_left_unfinished_is_no_snapshot_and_is_removed(snapshots: Path) -> None:
    remove_unfinished(snapshots)  # before there is a folder
    write(snapshots)

    class CrashError(Exception):
        pass

    def crash(file: Path) -> None:
        file.write_bytes(CONTENT[:100])
        raise CrashError

    with pytest.raises(CrashError):
        write(snapshots, 8, crash)
    assert list(snapshots.glob(f"{UNFINISHED}*"))
    assert [version for version, _ in snapshot_folders(snapshots)] == [7]
    remove_unfinished(snapshots)
    assert [folder.name for folder in snapshots.iterdir()] == ["000000000007"]


# --- Of a learner ---------------------------------------------------------------------------------


@pytest.fixture
def learner() -> Learner:
    return Learner(load("tiny", device="cpu"))


def test_weights_that_are_not_the_digests_are_not_served(learner: Learner, snapshots: Path) -> None:
    # Whole on disk, but not what the digest says.
    next(iter(trained_parameters(learner.weights.served).values())).data.add_(1)
    prepare_snapshot(learner, snapshots)()
    other = Learner(load("tiny", device="cpu"))
    before = weights_digest(other.weights.served)
    with pytest.raises(SnapshotError, match="other weights than it says"):
        restore_snapshot(other, folder_of(snapshots, 0))
    assert weights_digest(other.weights.served) == before


def test_a_snapshot_of_another_base_is_refused(learner: Learner, snapshots: Path) -> None:
    prepare_snapshot(learner, snapshots)()
    folder = folder_of(snapshots, 0)
    restore_snapshot(learner, folder)
    fields = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(fields | {"base_digest": "other"}))
    before = (learner.version, learner.digest)
    with pytest.raises(SnapshotError, match="another base checkpoint"):
        restore_snapshot(learner, folder)
    assert (learner.version, learner.digest) == before


def test_a_disk_that_fills_up_while_weights_are_saved_is_an_error_of_ours(
    learner: Learner, snapshots: Path
) -> None:
    write = prepare_snapshot(learner, snapshots)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(SnapshotError, match="could not be written"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(snapshots.iterdir()) == []
