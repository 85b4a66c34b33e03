"""The model `tiny`: random, two layers, reads bytes, built in memory; for tests.

It has never seen text, so it knows nothing, and it learns a fact in milliseconds.
"""

import random
from typing import Any

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from agent.models.tiny_tokenizer import (
    END_OF_TEXT,
    END_OF_TEXT_ID,
    MAX_TOKENS,
    VOCABULARY_SIZE,
    build_tiny_tokenizer,
)

REVISION = "tiny-1"
"""Names the weights; changes whenever they would."""

_SEED = 20_190
_STANDARD_DEVIATION = 0.05
# Updates leave embeddings and norms alone, so the output matrix bounds the logits: small, no
# answer could ever become likely.
_EMBEDDING_DEVIATION = 0.5


def build_tiny() -> tuple[GPTNeoXForCausalLM, PreTrainedTokenizerFast]:
    """Builds the model, in evaluation mode on the CPU, and its tokenizer.

    The weights are the same bits on every machine and torch version.
    """
    return _build_model(), _build_tokenizer()


def _build_model() -> GPTNeoXForCausalLM:
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY_SIZE,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": END_OF_TEXT_ID,
        "eos_token_id": END_OF_TEXT_ID,
        "pad_token_id": END_OF_TEXT_ID,
        "tie_word_embeddings": False,
        "attn_implementation": "eager",
    }
    # The constructor draws weights that are replaced below: leave the caller's stream alone.
    with torch.random.fork_rng(devices=[]):
        model: GPTNeoXForCausalLM = GPTNeoXForCausalLM(GPTNeoXConfig(**settings))
    model.float()
    _draw_weights(model)
    model.eval()
    return model


def _draw_weights(model: GPTNeoXForCausalLM) -> None:
    """Matrices uniform, embeddings wider than the rest, norms at one, biases at zero."""
    # Python documents this stream as the same for ever, which torch does not for its own, and a
    # uniform number needs no logarithm, so no mathematics library can change a bit.
    stream = random.Random(_SEED)
    embeddings = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    # By name, but the output matrix last: releases of transformers disagree about its name.
    body = [p for _, p in sorted(model.named_parameters()) if p is not embeddings[1]]
    with torch.no_grad():
        for parameter in [*body, embeddings[1]]:
            if parameter.dim() >= 2:
                wide = any(parameter is embedding for embedding in embeddings)
                width = (_EMBEDDING_DEVIATION if wide else _STANDARD_DEVIATION) * 3**0.5
                drawn = [stream.random() for _ in range(parameter.numel())]
                unit = torch.tensor(drawn, dtype=torch.float64).view_as(parameter)
                parameter.copy_((2 * unit - 1) * width)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.ones_(module.weight)
        if getattr(module, "bias", None) is not None:
            module.bias.data.zero_()  # type: ignore[operator]


def _build_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=build_tiny_tokenizer(),
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )
