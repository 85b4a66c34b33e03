"""Snapshots: the weights of one ledger position on disk, whole or not at all.

A snapshot holds only the weights that updates change; the others are the base checkpoint's. That is
what makes it a delta: for SmolLM2-135M 425 of 538 MB, for Pythia-410m 1.2 of 1.6 GB.

    snapshots/000000000042/weights.safetensors
    snapshots/000000000042/manifest.json         what it is, and the hash of every byte

It is written under a temporary name, synced, and renamed: a folder with a version for its name is
complete, or was damaged later, which its hash tells. This module knows files only, no torch: the
server lists, verifies and prunes with it, the learner writes and reads.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.durable_files import flush, sha256_of
from agent.errors import SnapshotError

WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
UNFINISHED = ".unfinished-"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotManifest:
    """What a snapshot is.

    Attributes:
        model_version: the ledger position whose weights it holds.
        digest: of the whole model's weights; see `digest.weights_digest`.
        base_digest: of the base checkpoint it completes.
        sha256: of every byte of the file.
        size: of the file, bytes.
        environment: fingerprint of what made it.
        created_at: ISO 8601, UTC.
    """

    model_version: int
    digest: str
    base_digest: str
    sha256: str
    size: int
    environment: Mapping[str, str]
    created_at: str


def folder_of(snapshots: Path, model_version: int) -> Path:
    """Where the snapshot of a version is kept."""
    return snapshots / f"{model_version:012d}"


def write_snapshot(
    snapshots: Path,
    save: Callable[[Path], None],
    *,
    model_version: int,
    digest: str,
    base_digest: str,
    environment: Mapping[str, str],
) -> SnapshotManifest:
    """Writes a snapshot; when it returns, it is complete and on disk.

    Args:
        snapshots: folder of all snapshots; made if missing.
        save: writes the weights to the file it is given.
        model_version: see `SnapshotManifest`.
        digest: see `SnapshotManifest`.
        base_digest: see `SnapshotManifest`.
        environment: see `SnapshotManifest`.

    Raises:
        SnapshotError: the disk is full, or cannot be written.
    """
    final = folder_of(snapshots, model_version)
    unfinished = snapshots / f"{UNFINISHED}{final.name}-{os.getpid()}"
    try:
        snapshots.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        file = unfinished / WEIGHTS
        save(file)
        manifest = SnapshotManifest(
            model_version=model_version,
            digest=digest,
            base_digest=base_digest,
            sha256=sha256_of(file),
            size=file.stat().st_size,
            environment=dict(environment),
            created_at=datetime.now(UTC).isoformat(),
        )
        text = json.dumps(dataclasses.asdict(manifest), indent=1)
        (unfinished / MANIFEST).write_text(text, encoding="utf-8")
        for path in (file, unfinished / MANIFEST, unfinished):
            flush(path)
        # A damaged one of the same version makes room.
        shutil.rmtree(final, ignore_errors=True)
        unfinished.rename(final)
        flush(snapshots)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise SnapshotError(
            f"the snapshot of version {model_version} could not be written in {snapshots}: {error}."
            " Make room on the disk; the ledger has everything all the same"
        ) from error
    return manifest


def verify_snapshot(folder: Path) -> SnapshotManifest:
    """Compares every byte with the manifest.

    Raises:
        SnapshotError: something differs or is missing.
    """
    manifest = read_manifest(folder)
    try:
        same = (folder / WEIGHTS).stat().st_size == manifest.size and (
            sha256_of(folder / WEIGHTS) == manifest.sha256
        )
    except OSError as error:
        raise SnapshotError(f"the snapshot {folder} cannot be read: {error}") from error
    if not same:
        raise SnapshotError(
            f"the snapshot {folder} is torn or altered: its bytes have another hash"
        )
    return manifest


def read_manifest(folder: Path) -> SnapshotManifest:
    """The manifest alone; cheap.

    Raises:
        SnapshotError: there is none, it is damaged, or it is of another version than the folder.
    """
    try:
        fields = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest = SnapshotManifest(**fields)
        named = folder_of(folder.parent, manifest.model_version).name
    except (OSError, ValueError, TypeError) as error:
        raise SnapshotError(f"the snapshot {folder} has no readable manifest: {error}") from error
    if named != folder.name:
        raise SnapshotError(f"the snapshot {folder} says it is version {manifest.model_version}")
    return manifest


def is_snapshot_of(snapshots: Path, model_version: int, digest: str) -> bool:
    """Whether a snapshot claims to hold these weights; its bytes are checked when it is restored.

    Args:
        snapshots: folder of all snapshots.
        model_version: of the ledger.
        digest: of the weights at this version, as recorded in the ledger. A database restored
            from a backup may have learned other things since, under the same numbers.
    """
    folder = folder_of(snapshots, model_version)
    try:
        manifest = read_manifest(folder)
        whole = (folder / WEIGHTS).stat().st_size == manifest.size
    except (OSError, SnapshotError):
        return False
    return whole and manifest.digest == digest


def snapshot_folders(snapshots: Path) -> Iterator[tuple[int, Path]]:
    """Version and folder of each snapshot, damaged or not, newest first.

    A link is none: what it leads to is not this memory's to remove. Nor is what `folder_of`
    would not have named so.
    """
    if not snapshots.is_dir():
        return
    for folder in sorted(snapshots.iterdir(), reverse=True):
        named = folder.name.isascii() and folder.name.isdigit()
        if named and folder == folder_of(snapshots, int(folder.name)) and _is_folder(folder):
            yield int(folder.name), folder


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def remove_others(snapshots: Path, kept: Collection[int]) -> None:
    """Removes all snapshots but those of some versions, unfinished ones too, as below.

    Raises:
        OSError: one cannot be removed.
    """
    remove_unfinished(snapshots)
    for version, folder in snapshot_folders(snapshots):
        if version not in kept:
            shutil.rmtree(folder)


def remove_unfinished(snapshots: Path) -> None:
    """Removes what crashed writers left behind. Call while none is writing."""
    if snapshots.is_dir():
        for folder in filter(_is_folder, snapshots.glob(f"{UNFINISHED}*")):
            shutil.rmtree(folder, ignore_errors=True)
