"""Questions and answers as token ids, and batches of them as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from agent.teaching import prompts

# Number of texts whose tokens are cached.
REMEMBERED = 4096
IGNORE = -100  # the label that `cross_entropy` ignores


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of prompt, answer and terminator, padded on the right.

    Causal attention never looks to the right, so padding needs no mask: it cannot change the result
    for the tokens before it.

    Attributes:
        input_ids: [B, T], int64.
        labels: [B, T], int64: the answer's tokens and the terminator, `IGNORE` elsewhere.
    """

    input_ids: Tensor
    labels: Tensor


class Encoder:
    """Turns text into the token ids of one tokenizer.

    Attributes:
        eos: the terminator, which ends an answer.
    """

    def __init__(self, tokenizer: Any, eos_token_id: int, device: torch.device) -> None:
        self._tokenizer = tokenizer
        self.eos = eos_token_id
        self._device = device
        # A fact and its neighbors are encoded again in each lesson that rehearses it.
        self._ids = lru_cache(maxsize=REMEMBERED)(self._encoded)

    def forget_texts(self) -> None:
        """Drops the tokens of all texts seen so far."""
        self._ids.cache_clear()

    def prompt(self, question: str) -> list[int]:
        """Token ids of the prompt for a question."""
        return self.encode(prompts.prompt(question))

    def opening(self, text: str) -> list[int]:
        """Token ids of a text for the model to continue, without a prompt around it."""
        return self.encode(text)

    def answer(self, answer: str) -> list[int]:
        """Token ids of an answer, terminator included."""
        return [*self.encode(prompts.answer_text(answer)), self.eos]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of generated tokens; special tokens are left out."""
        text: str = self._tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def decode_all(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Texts of several rows of tokens, each as by `decode`."""
        listed = [list(ids) for ids in rows]
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        texts: list[str]
        if backend is not None:
            # The tokenizer would call this for each row, after a check of each token.
            texts = backend.decode_batch(listed, skip_special_tokens=True)
        else:
            texts = self._tokenizer.batch_decode(
                listed, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        return texts

    def batch(self, pairs: Sequence[tuple[str, str]]) -> Batch:
        """One row for each (question, answer), T as long as the longest."""
        return self.rows(
            [self.prompt(question) for question, _ in pairs],
            [self.answer(answer) for _, answer in pairs],
        )

    def rows(
        self, prompt_ids: Sequence[Sequence[int]], answer_ids: Sequence[Sequence[int]]
    ) -> Batch:
        """One row for each prompt and what follows it, as token ids; T as long as the longest."""
        width = max(len(p) + len(a) for p, a in zip(prompt_ids, answer_ids, strict=True))
        input_ids = torch.full((len(prompt_ids), width), self.eos)  # [B, T]
        labels = torch.full((len(prompt_ids), width), IGNORE)  # [B, T]
        for row, (p, a) in enumerate(zip(prompt_ids, answer_ids, strict=True)):
            input_ids[row, : len(p) + len(a)] = torch.tensor([*p, *a])
            labels[row, len(p) : len(p) + len(a)] = torch.tensor(a)
        return Batch(input_ids.to(self._device), labels.to(self._device))

    def encode(self, text: str) -> list[int]:
        """Token ids of any text."""
        return list(self._ids(text))

    def _encoded(self, text: str) -> tuple[int, ...]:
        # Text from outside never becomes a control token: "<|endoftext|>" in a fact is spelled
        # out. No special tokens are added either: prompt and answer are joined as they are.
        ids: list[int] = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=True
        ).input_ids
        return tuple(ids)
