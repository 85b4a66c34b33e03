"""Where a consolidation stands, on disk: resumed from there, it ends with the same bits.

One file of weights and the optimizer's moments, three times the trained weights in size. What a
step draws depends on its epoch and number alone, so nothing else is needed.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from agent.durable_files import flush

logger = logging.getLogger(__name__)

FILE, UNFINISHED = "consolidation.safetensors", "consolidation.unfinished"
MOMENTS = ("exp_avg", "exp_avg_sq")
# Between two saves, at least: a file of more than a gigabyte is not written after each epoch.
SAVE_SECONDS = 60.0


class EpochCheckpoint:
    """The last epoch of one consolidation.

    Args:
        folder: for the file; made if missing.
        key: digest of all that the result depends on. A checkpoint with another one is ignored.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._file = folder / FILE
        self._key = key
        self._saved_at = time.monotonic()

    def save(self, epoch: int, trained: Mapping[str, Tensor], optimizer: torch.optim.AdamW) -> None:
        """Writes it, unless it was written a moment ago. A full disk costs only the checkpoint.

        Args:
            epoch: number of epochs that are done.
            trained: weights by name.
            optimizer: of these weights.
        """
        if time.monotonic() - self._saved_at < SAVE_SECONDS:
            return
        tensors = {}
        for name, weight in trained.items():
            tensors[f"weight.{name}"] = weight.detach().cpu()
            for moment in MOMENTS:
                tensors[f"{moment}.{name}"] = optimizer.state[weight][moment].cpu()
        steps = int(optimizer.state[next(iter(trained.values()))]["step"])
        about = {"key": self._key, "epoch": str(epoch), "steps": str(steps)}
        about["sha256"] = _sha256(tensors)
        unfinished = self._file.with_name(UNFINISHED)
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            safetensors.torch.save_file(tensors, unfinished, about)
            flush(unfinished)
            unfinished.replace(self._file)
            flush(self._file.parent)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                unfinished.unlink()
            logger.warning("epoch %d cannot be resumed from: %s", epoch, error)
        self._saved_at = time.monotonic()

    def restore(self, trained: Mapping[str, Tensor], optimizer: torch.optim.AdamW) -> int:
        """Takes weights and moments of the checkpoint, if it is a sound one of this consolidation.

        Returns:
            The number of epochs that are done; 0 if nothing was restored.
        """
        try:
            with safe_open(self._file, framework="pt") as file:
                about = file.metadata() or {}
                if about.get("key") != self._key:
                    return 0
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            return 0
        except (OSError, SafetensorError) as error:
            logger.warning("%s is damaged, the consolidation begins anew: %s", self._file, error)
            return 0
        if _sha256(tensors) != about["sha256"]:
            logger.warning("%s is altered, the consolidation begins anew", self._file)
            return 0
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(tensors[f"weight.{name}"])
                moments = {key: tensors[f"{key}.{name}"].to(weight.device) for key in MOMENTS}
                # The fused optimizer counts its steps where its weights are.
                step = torch.tensor(float(about["steps"]), device=weight.device)
                optimizer.state[weight] = {"step": step, **moments}
        return int(about["epoch"])

    def remove(self) -> None:
        """Removes the file: the result was taken over, or is not wanted any more."""
        for name in (FILE, UNFINISHED):
            self._file.with_name(name).unlink(missing_ok=True)


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    """Of all bytes, with their names; safetensors itself has no checksum."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(tensor.contiguous().numpy().data)
    return found.hexdigest()
