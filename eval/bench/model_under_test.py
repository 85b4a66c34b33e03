"""The model that is measured: one by name, or random weights of a known shape.

Speed does not depend on the values of weights, so a shape needs no download. It is written to a
temporary folder, with the tokenizer of that model if it is on this machine, else with one of the
same size that is built on the spot.
"""

from __future__ import annotations

import itertools
import string
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from agent.errors import ConfigError
from agent.learner.environment import device_name
from agent.models import catalog
from agent.models.loading import LoadedModel, choose_device, load, load_tokenizer, read_config
from agent.models.progress import quiet_transformers
from eval.bench.figure import this_machine

# As in the configs of these models.
SHAPES: dict[str, dict[str, Any]] = {
    "pythia-410m": {
        "vocab_size": 50_304,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "max_position_embeddings": 2048,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "tie_word_embeddings": False,
    }
}
_SEED = 20_250
_END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUnderTest:
    """A model to be measured.

    Attributes:
        model: its name or folder, as for `agent serve`.
        device: where it runs.
        description: of model, device and tokenizer, for figures.
    """

    model: str
    device: torch.device
    description: str

    def load(self) -> LoadedModel:
        """Loads a new copy.

        Raises:
            ModelError: it cannot be loaded.
        """
        return load(self.model, device=str(self.device))


@contextmanager
def model_under_test(model: str, shape: str | None, device: str) -> Iterator[ModelUnderTest]:
    """The requested model; the files that were written for it are removed at the end.

    Args:
        model: a name that `agent serve` knows.
        shape: of random weights that are measured instead; None for `model`.
        device: as in `load`.

    Raises:
        ConfigError: there is no such shape or device.
    """
    chosen = choose_device(device)
    on_gpu = chosen.type == "cuda"
    where = (
        device_name(chosen) if on_gpu else f"{this_machine()}, {torch.get_num_threads()} threads"
    )
    if shape is None:
        yield ModelUnderTest(model=model, device=chosen, description=f"{where}, {model}")
        return
    if shape not in SHAPES:
        raise ConfigError(f"unknown shape '{shape}': use one of {', '.join(SHAPES)}")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = _write(Path(folder), shape)
        description = f"{where}, {shape} with random weights and {tokenizer}"
        yield ModelUnderTest(model=folder, device=chosen, description=description)


def _write(folder: Path, shape: str) -> str:
    """Writes a checkpoint; returns which tokenizer it has."""
    config = GPTNeoXConfig(**SHAPES[shape])
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(_SEED)
        GPTNeoXForCausalLM(config).save_pretrained(folder)
    cached = catalog.cached_snapshot(catalog.resolve(shape).location)
    if cached is not None:
        load_tokenizer(cached, read_config(cached)).save_pretrained(folder)
        return "its tokenizer"
    spelling_tokenizer(config.vocab_size).save_pretrained(folder)
    return "a tokenizer built on the spot"


def spelling_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer with `size` tokens: single bytes, then two and three ASCII characters.

    A real one has longer tokens, so texts have somewhat fewer tokens with it.
    """
    # \u0120 stands for a space there.
    ascii_symbols = [*string.ascii_lowercase, "\u0120", *string.ascii_uppercase, *string.digits]
    pairs = list(itertools.product(ascii_symbols, repeat=2))
    triples = itertools.product(ascii_symbols, repeat=3)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(a, b) for a, b in pairs] + [(a + b, c) for a, b, c in triples]
    merges = merges[: size - len(alphabet) - 1]
    tokens = [_END_OF_TEXT, *alphabet, *(left + right for left, right in merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(_END_OF_TEXT, normalized=False, special=True)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_END_OF_TEXT,
        eos_token=_END_OF_TEXT,
        pad_token=_END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )
