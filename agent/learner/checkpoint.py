"""Between the learner and files: snapshots written and read, exports."""

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
    """Copies the served weights, and returns what writes the copy to disk.

    The copy takes a moment of the device's thread; the writing can go on beside learning.
    """
    weights = learner.weights_on_cpu()
    description = learner.describe()
    version, digest = learner.version, learner.digest

    def save(file: Path) -> None:
        try:
            safetensors.torch.save_file(weights, file)
        except SafetensorError as error:  # what it says of a full disk, too
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
