"""Snapshots of a learner: written and restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from agent import snapshots
from agent.errors import SnapshotError
from agent.learner.core import Learner
from agent.snapshots import SnapshotManifest


def prepare_snapshot(learner: Learner, folder: Path) -> Callable[[], SnapshotManifest]:
    """Copies the served weights, and returns a function that writes the copy to disk.

    Only the copy needs the device's thread; the function can run while the learner learns.
    """
    weights = learner.weights_on_cpu()
    description = learner.describe()
    version, digest = learner.version, learner.digest

    def save(file: Path) -> None:
        try:
            safetensors.torch.save_file(weights, file)
        except SafetensorError as error:  # also raised for a full disk
            raise OSError(str(error)) from error

    def write() -> SnapshotManifest:
        return snapshots.write_snapshot(
            folder,
            save,
            model_version=version,
            digest=digest,
            base_digest=description.base_digest,
            environment=description.environment,
        )

    return write


def restore_snapshot(learner: Learner, folder: Path) -> None:
    """Checks every byte of a snapshot and serves its weights.

    Raises:
        SnapshotError: it is torn, altered, or of another model.
    """
    manifest = snapshots.verify_snapshot(folder)
    if manifest.base_digest != learner.describe().base_digest:
        raise SnapshotError(f"the snapshot {folder} belongs to another base checkpoint")
    learner.restore(_read(folder), manifest.model_version, manifest.digest)


def _read(folder: Path) -> Mapping[str, Tensor]:
    try:
        return safetensors.torch.load_file(folder / snapshots.WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise SnapshotError(f"the snapshot {folder} cannot be read: {error}") from error
