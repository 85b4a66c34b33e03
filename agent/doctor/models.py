"""The model that is to be served, and the device that it has to fit on."""

from __future__ import annotations

import os
from pathlib import Path

from agent.doctor.findings import GIB, Finding, bad, good, warning
from agent.errors import ModelNotFoundError
from agent.models import catalog
from agent.models.catalog import ModelEntry, Source

BYTES_A_WEIGHT = 4
# Served, working and base copy; gradient and its direction during an update.
COPIES_IN_MEMORY = 5
# Libraries, activations, SQLite.
BESIDE_THE_WEIGHTS = GIB


def check_model(name: str) -> Finding:
    """The model is known, and on this machine."""
    entry = catalog.resolve(name)  # raises with a remedy
    if not catalog.is_cached(entry):
        return warning(
            f"{name} is not on this machine yet", f"agent models pull {name}, beforehand"
        )
    return good(f"{name} is on this machine")


def check_device(device: str, needed: int | None) -> Finding:
    """The device exists, and its memory is enough for the model."""
    # Imported late: torch takes seconds.
    import torch

    from agent.learner.environment import device_name
    from agent.models.loading import choose_device

    chosen = choose_device(device)  # raises with a remedy
    if chosen.type == "cpu":
        return good(f"cpu, {os.cpu_count()} threads, torch {torch.__version__}")
    free, total = torch.cuda.mem_get_info(chosen)
    found = f"{device_name(chosen)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if needed is not None and free < needed:
        return bad(
            f"{found}; the model needs about {needed / GIB:.1f}",
            "end what else uses the GPU, choose a smaller --model, or --device cpu",
        )
    return good(found)


def weights(model: str) -> int | None:
    """Bytes of a model's weights in fp32; None if it is not known."""
    try:
        entry = catalog.resolve(model)
    except ModelNotFoundError:
        return None
    if entry.parameters is not None:
        return entry.parameters * BYTES_A_WEIGHT
    folder = _folder(entry)
    if folder is None:
        return None
    # At least: files in half precision take twice as much.
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) or None


def _folder(entry: ModelEntry) -> Path | None:
    if entry.source is Source.HUB:
        return catalog.cached_snapshot(entry.location)
    return Path(entry.location) if entry.source is Source.FOLDER else None


def needed_memory(model: str) -> int | None:
    """Bytes that learning with a model takes, about; None if it is not known."""
    size = weights(model)
    return None if size is None else COPIES_IN_MEMORY * size + BESIDE_THE_WEIGHTS
