"""General text that updates must leave as it is: written by the base model itself.

Text from elsewhere anchors the model to that text only: held to WikiText, it drifted on the web's
(docs/LOG.md). What the model writes by itself is as broad as what it knows.
"""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import torch

from agent.learning import catalog
from agent.learning.encoding import Encoder
from agent.learning.model import LoadedModel

logger = logging.getLogger(__name__)

# Raise with every change of what follows: texts are part of what an update is repeated from.
VERSION = 2
# Over a thousand facts each of 96 texts is looked at hundreds of times, and held better than other
# text is. On a CPU updates look at one text each, and writing more takes minutes.
COUNTS = {"cpu": 96, "cuda": 512}
TOKENS = 48
_SEED = 20_240


def general_texts(loaded: LoadedModel, encoder: Encoder) -> list[list[int]]:
    """Texts of at most `TOKENS` tokens; the same ones for the same weights and kind of device.

    Two of three begin with a word drawn from the vocabulary, the others with a question. They are
    kept beside the models, since writing them takes seconds.
    """
    count = COUNTS[loaded.device.type]
    folder = catalog.cache_folder() / "general-text"
    file = folder / f"{loaded.revision}-{VERSION}-{count}.json"
    try:
        texts: list[list[int]] = json.loads(file.read_text(encoding="utf-8"))
        return texts
    except FileNotFoundError:
        pass
    except ValueError:
        logger.warning("%s is damaged: the texts are written anew", file)
    except OSError as error:
        # As where they cannot be kept: learning needs the texts, not the file.
        logger.warning("cannot read %s: %s", file, error)
    texts = _written(loaded, encoder, count)
    _keep(texts, file)
    return texts


@torch.inference_mode()
def _written(loaded: LoadedModel, encoder: Encoder, count: int) -> list[list[int]]:
    """Samples at temperature 1, without the tail cut off: the model's own distribution."""
    starts = _starts(loaded, encoder, count)
    # On the CPU, whatever the device: one stream of random numbers for all.
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
    """Up to the terminator, which may not come first."""
    return row[: row.index(eos, 1) + 1] if eos in row[1:] else row


def _keep(texts: list[list[int]], file: Path) -> None:
    temporary = file.with_suffix(".tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(texts), encoding="utf-8")
        temporary.replace(file)  # another process may read it meanwhile
    except OSError as error:
        logger.warning("cannot keep %s: %s", file, error)
