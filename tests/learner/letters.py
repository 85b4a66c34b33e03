"""A language of ten tokens, small enough to enumerate: models, tokenizer, exact probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from agent.learner.sampling.answer_matcher import occurs
from agent.learner.sampling.truncation import NextTokens, Sampling, Truncation

PIECES = [" ", "a", "b", "c", "d", "e", "f", "g", "cd", ""]
EOS = len(PIECES) - 1
CPU = torch.device("cpu")


class Letters:
    """A tokenizer. It takes the longest piece first: "cd" is one token, though "c", "d" do too.

    Other letters are the terminator.
    """

    def __len__(self) -> int:
        return len(PIECES)

    def __call__(self, text: str, **_: Any) -> Any:
        ids = []
        while text:
            piece = max((p for p in PIECES if text.startswith(p)), key=len)
            ids.append(PIECES.index(piece))
            text = text[max(1, len(piece)) :]
        return SimpleNamespace(input_ids=ids)

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(PIECES[token] for token in ids)

    def batch_decode(self, rows: Sequence[Sequence[int]], **_: Any) -> list[str]:
        return [self.decode(row) for row in rows]


def small_model(family: str = "gpt_neox", seed: int = 0, *, calm: float = 1.0) -> Any:
    """Random, in evaluation mode; predictions differ by place, less if `calm` is small."""
    shape: dict[str, Any] = {
        "vocab_size": len(PIECES),
        "bos_token_id": EOS,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
        "attn_implementation": "eager",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match family:
            case "llama":
                model: Any = LlamaForCausalLM(
                    LlamaConfig(
                        **shape,
                        hidden_size=16,
                        intermediate_size=24,
                        num_hidden_layers=2,
                        num_attention_heads=4,
                        num_key_value_heads=2,
                        max_position_embeddings=64,
                    )
                )
            case "gpt2":
                model = GPT2LMHeadModel(
                    GPT2Config(**shape, n_positions=64, n_embd=16, n_layer=2, n_head=4)
                )
            case _:
                model = GPTNeoXForCausalLM(
                    GPTNeoXConfig(
                        **shape,
                        hidden_size=16,
                        intermediate_size=32,
                        num_hidden_layers=2,
                        num_attention_heads=4,
                        max_position_embeddings=64,
                    )
                )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" not in name and "ln_" not in name:
                    parameter.add_(0.5 * torch.randn(parameter.shape)).mul_(calm)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def exact_probability(model: Any, prompt: str, answer: str, sampling: Sampling) -> float:
    """That the answer occurs in a sampled text: over all texts, one by one."""
    ids = Letters()(prompt).input_ids
    limit = sampling.limit(len(ids))
    probability, open_ = 0.0, [(ids, 1.0)]
    while open_:
        logits = model(input_ids=torch.tensor([text for text, _ in open_])).logits[:, -1]
        settings = _same_for_all(sampling, len(open_))
        every = torch.arange(len(PIECES)).expand(len(open_), -1)
        nexts = NextTokens.of(logits, settings).probability(every).tolist()
        longer = []
        for (text, weight), row in zip(open_, nexts, strict=True):
            for token, share in enumerate(row):
                grown = ([*text, token], weight * share)
                if not share:
                    continue
                if occurs(answer, Letters().decode(grown[0])):
                    probability += grown[1]
                elif token != EOS and len(grown[0]) < limit:
                    longer.append(grown)
        open_ = longer
    return probability


def _same_for_all(sampling: Sampling, rows: int) -> Truncation:
    most = sampling.most(len(PIECES))
    return Truncation(
        torch.full((rows,), sampling.temperature),
        torch.full((rows,), most),
        torch.full((rows,), sampling.top_p, dtype=torch.float64),
        most,
    )


def surprise(some: Sequence[int], others: Sequence[int]) -> float:
    """How far two samples differ: chi-square, in standard deviations from its mean.

    Kinds seen fewer than ten times in all are put together.
    """
    pairs = list(zip(some, others, strict=True))
    kinds = [pair for pair in pairs if sum(pair) >= 10]
    rare = [pair for pair in pairs if sum(pair) < 10]
    kinds.append((sum(a for a, _ in rare), sum(b for _, b in rare)))
    n, m = sum(some), sum(others)
    chi_square = sum(
        (a * math.sqrt(m / n) - b * math.sqrt(n / m)) ** 2 / (a + b) for a, b in kinds if a + b
    )
    freedom = sum(a + b > 0 for a, b in kinds) - 1
    return (chi_square - freedom) / math.sqrt(2 * freedom) if freedom else chi_square
