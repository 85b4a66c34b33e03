"""General text on which updates must not change the predictions. The base model writes it.

Text from another source guards only text of its kind: held to WikiText, the model changed on text
from the web (docs/LOG.md). What the model writes by itself is as broad as what it knows.

The text is an input of every update that it guards, and of its replay. Other libraries or hardware
may write other text. So a memory keeps its own copy, and the ledger records its digest:

    cache/general-text/REVISION-VERSION-COUNT.json   the text, for all memories of a model
    DATA/general-text/VERSION-COUNT.json             digest and text, of one memory, in its backups
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agent.durable_files import flush
from agent.learner.inference.encoding import Encoder
from agent.models import catalog
from agent.models.loading import LoadedModel
from agent.teaching.types import GENERAL_TEXT

logger = logging.getLogger(__name__)

# Raise this with every change of the code below: replay depends on the texts.
VERSION = 2
# In a thousand facts, each of 96 texts is used hundreds of times, and changes less than other text.
# On a CPU an update uses one text, and writing more of them would take minutes.
COUNTS = {"cpu": 96, "cuda": 512}
TOKENS = 48
_SEED = 20_240


@dataclass(frozen=True, slots=True)
class GeneralText:
    """Texts as token ids, with their digest."""

    texts: list[list[int]]

    @property
    def digest(self) -> str:
        """SHA-256 of the token ids, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()


class GeneralTextPool:
    """The general text of a memory: its own copy, made at the first use.

    Args:
        loaded: the base checkpoint.
        encoder: its tokenizer.
        folder: of the memory's copies; None for a memory without a folder.
    """

    def __init__(self, loaded: LoadedModel, encoder: Encoder, folder: Path | None) -> None:
        self._loaded = loaded
        self._encoder = encoder
        self._folder = folder
        self._pool: GeneralText | None = None

    @property
    def digest(self) -> str:
        """Digest of the texts; empty before their first use."""
        return self._pool.digest if self._pool else ""

    def texts(self) -> list[list[int]]:
        """Their tokens."""
        if self._pool is None:
            self._pool = self._read_or_made()
        return self._pool.texts

    def _read_or_made(self) -> GeneralText:
        if self._folder is None:
            return GeneralText(general_texts(self._loaded, self._encoder))
        file = self._folder / f"{VERSION}-{COUNTS[self._loaded.device.type]}.json"
        own = _own_copy(file)
        if own is None:
            own = GeneralText(general_texts(self._loaded, self._encoder))
            _keep({"digest": own.digest, "texts": own.texts}, file)
            return own
        cached = _cached(self._loaded)
        elsewhere = _read(cached)
        if elsewhere is not None and elsewhere != own.texts:
            logger.warning(
                "the general text in %s is not the one that this memory was taught with: the"
                " memory's own copy, %s, is used",
                cached,
                file,
            )
        return own


def _own_copy(file: Path) -> GeneralText | None:
    """The copy of a memory; None if it is missing or damaged."""
    kept = _read(file)
    if kept is None:
        return None
    try:
        own = GeneralText(kept["texts"])
        if own.digest == kept["digest"]:
            return own
    except (KeyError, TypeError):
        pass
    logger.error("%s is damaged: the general text is made again, and may differ", file)
    return None


def general_texts(loaded: LoadedModel, encoder: Encoder) -> list[list[int]]:
    """Texts of at most `TOKENS` tokens; they depend on the weights and the kind of device.

    Two thirds begin with a word drawn from the vocabulary, the others with a question. They are
    cached with the models, since writing them takes seconds.
    """
    file = _cached(loaded)
    kept: list[list[int]] | None = _read(file)
    if kept is not None:
        return kept
    texts = _written(loaded, encoder, COUNTS[loaded.device.type])
    _keep(texts, file)
    return texts


def _cached(loaded: LoadedModel) -> Path:
    name = f"{loaded.revision}-{VERSION}-{COUNTS[loaded.device.type]}.json"
    return catalog.cache_folder() / GENERAL_TEXT / name


def _read(file: Path) -> Any:
    """The JSON in a file; None if it is missing or cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except ValueError:
        logger.warning("%s is damaged: the texts are written anew", file)
    except OSError as error:
        # Not fatal: learning needs the texts, not the file.
        logger.warning("cannot read %s: %s", file, error)
    return None


@torch.inference_mode()
def _written(loaded: LoadedModel, encoder: Encoder, count: int) -> list[list[int]]:
    """Samples at temperature 1 without truncation: the model's own distribution."""
    starts = _starts(loaded, encoder, count)
    # On the CPU for every device, so that all use the same random numbers.
    stream = torch.Generator().manual_seed(_SEED)
    texts = []
    # Rows of one length, so that no padding is needed.
    for length in sorted({len(start) for start in starts}):
        rows = torch.tensor([start for start in starts if len(start) == length])
        ids, cache = rows.to(loaded.device), None
        while rows.shape[1] < min(TOKENS, loaded.max_tokens):
            model: Any = loaded.model
            out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            probabilities = out.logits[:, -1].float().softmax(-1).cpu()
            drawn = torch.multinomial(probabilities, 1, generator=stream)
            rows = torch.cat([rows, drawn], dim=1)
            ids = drawn.to(loaded.device)
        texts += [_to_its_end(row, encoder.eos) for row in rows.tolist()]
    return texts


def _starts(loaded: LoadedModel, encoder: Encoder, count: int) -> list[list[int]]:
    words = [
        [token]
        for token in range(len(loaded.tokenizer))
        if (text := encoder.decode([token]))[:1] == " " and text[1:].isalpha()
    ] or [[token] for token in range(len(loaded.tokenizer)) if token != encoder.eos]
    draw = random.Random(_SEED)
    questions = count // 3
    asked = encoder.encode("Q:")
    return [draw.choice(words) for _ in range(count - questions)] + [asked] * questions


def _to_its_end(row: list[int], eos: int) -> list[int]:
    """The row up to its terminator; a terminator in first place does not count."""
    return row[: row.index(eos, 1) + 1] if eos in row[1:] else row


def _keep(kept: object, file: Path) -> None:
    temporary = file.with_name(f".{file.name}-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(kept), encoding="utf-8")
        flush(temporary)
        temporary.replace(file)  # another process may read it meanwhile
    except OSError as error:
        logger.warning("cannot keep %s: %s", file, error)
