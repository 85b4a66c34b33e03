"""Which weight files of a folder are opened: safetensors, which hold numbers and nothing else.

A pickle can run code when it is opened. transformers prefers safetensors, but follows an index
or an adapter to any other file; so what it may follow is checked here first.
"""

from __future__ import annotations

import json
from pathlib import Path

from agent.errors import ModelError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt"})


def require_weights(folder: Path) -> None:
    """Makes sure that the weights are there as safetensors, and that nothing leads elsewhere.

    Raises:
        ModelError: They are absent, pickled, in another folder, or those of an adapter.
    """
    if (folder / ADAPTER).exists():
        raise ModelError(
            f"{folder} holds an adapter ({ADAPTER}), which leads to other weights: merge it into"
            " its model (peft: merge_and_unload), and save that."
        )
    if (folder / WEIGHTS).is_file():
        return
    if (folder / INDEX).is_file():
        for name in sorted(_shards(folder / INDEX)):
            if Path(name).name != name or Path(name).suffix != ".safetensors":
                raise ModelError(
                    f"{folder / INDEX} leads to {name!r}: only .safetensors files of the same"
                    " folder are opened. Save the model again (model.save_pretrained)."
                )
        return
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        raise ModelError(
            f"{folder} has its weights only as pickle ({', '.join(pickles[:3])}), which can run"
            " code when it is opened: convert them to safetensors (load the model with"
            " transformers where you trust it, and call model.save_pretrained(folder))."
        )
    raise ModelError(f"{folder} holds no weights: {WEIGHTS} is missing.")


def _shards(index: Path) -> set[str]:
    try:
        return {str(name) for name in json.loads(index.read_bytes())["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{index} is damaged: fetch or save the model again.") from error
