"""A model's tokenizer as its files have it, for a server that does not load the model.

The learner's own description has the last word: transformers may add to what the files say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.models import catalog, embedded, tiny_tokenizer
from agent.models.catalog import ModelEntry, Source
from agent.models.token_budget import MAX_FACT_TOKENS

# `max_position_embeddings` by the names that configurations give it.
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSource:
    """What is needed to count a fact's tokens.

    Attributes:
        tokenizer: the text of a `tokenizer.json`.
        max_tokens: the model's context; where its files do not say, the longest fact of any model.
    """

    tokenizer: str
    max_tokens: int


def read_tokenizer(entry: ModelEntry) -> TokenizerSource | None:
    """Reads a model's tokenizer from this machine; touches neither torch nor the network.

    Returns:
        None if the model is not here yet, or has no `tokenizer.json`.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is damaged.
    """
    if entry.source is Source.BUILT_IN:
        return TokenizerSource(
            tokenizer=tiny_tokenizer.build_tiny_tokenizer().to_str(),
            max_tokens=tiny_tokenizer.MAX_TOKENS,
        )
    folder = _folder(entry)
    if folder is None or not (folder / "tokenizer.json").is_file():
        return None
    return TokenizerSource(
        tokenizer=(folder / "tokenizer.json").read_text(encoding="utf-8"),
        max_tokens=_context(folder / "config.json"),
    )


def _folder(entry: ModelEntry) -> Path | None:
    match entry.source:
        case Source.FOLDER:
            return Path(entry.location)
        case Source.EMBEDDED:
            return embedded.installed(catalog.cache_folder())
        case _:
            return catalog.cached_snapshot(entry.location)


def _context(file: Path) -> int:
    if not file.is_file():
        return MAX_FACT_TOKENS
    config: Any = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no object")
    # Models that also see or hear keep what concerns text in a table of its own.
    text = config.get("text_config")
    settings = {**config, **text} if isinstance(text, dict) else config
    named = (settings.get(key) for key in _CONTEXT_KEYS)
    return next((n for n in named if isinstance(n, int) and n > 0), MAX_FACT_TOKENS)
