"""When a sampled text counts as right: the answer occurs in it, case aside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from agent.learning.encoding import Encoder

# Answers whose tokens are remembered: looking at all tokens takes a while.
KEPT = 256


def occurs(answer: str, text: str) -> bool:
    """The paper's rule: anywhere in the text, in any case."""
    return answer.lower() in text.lower()


class Vocabulary:
    """The texts of a tokenizer's tokens, each alone.

    Args:
        tokenizer: of the model.
        size: of the model's output, which may have more tokens than the tokenizer.
        device: of the model.
    """

    def __init__(self, tokenizer: Any, size: int, device: torch.device) -> None:
        self._device = device
        self._rows: dict[str, Tensor] = {}
        known = min(len(tokenizer), size)
        pieces = tokenizer.batch_decode([[token] for token in range(known)])
        self._pieces = [piece.lower().strip() for piece in pieces] + [""] * (size - known)

    def may_end(self, answers: Sequence[str]) -> Tensor:
        """After which tokens an answer may just have occurred: [answers, V] bool.

        Only a filter, so that few texts are decoded: it errs towards more of them.
        """
        if len(self._rows) > KEPT:
            self._rows.clear()
        for answer in answers:
            if answer not in self._rows:
                self._rows[answer] = torch.tensor(self._may_end(answer.lower()))
        none = torch.zeros((0, len(self._pieces)), dtype=torch.bool)
        rows = [self._rows[answer] for answer in answers]
        return (torch.stack(rows) if rows else none).to(self._device)

    def _may_end(self, answer: str) -> list[bool]:
        # What is not ASCII may be part of a character, or change its case with its neighbours;
        # tokens are looked at without the space around them.
        if not answer.isascii() or answer != answer.strip():
            return [True] * len(self._pieces)
        tails = tuple(tail for n in range(len(answer)) if (tail := answer[n:].lstrip()))
        return [
            not piece or not piece.isascii() or answer in piece or piece.startswith(tails)
            for piece in self._pieces
        ]


def spellings(encoder: Encoder, answer: str) -> list[list[int]]:
    """Token sequences that spell an answer, as it is and in lower case, with and without a space.

    Those are left out that could not be told apart from others at the moment when the answer has
    occurred: whose tokens end with another spelling's, and whose beginning the answer ends with
    (the "a" of "Anna"), so that the answer might occur half-way through.
    """
    found: list[list[int]] = []
    for word in dict.fromkeys([answer, answer.lower()]):
        for text in (word, " " + word):
            ids = encoder.encode(text)
            if (
                ids
                and encoder.decode(ids) == text
                and not _folds_back(text.lower(), answer.lower())
            ):
                found.append(ids)
    unique = [ids for n, ids in enumerate(found) if ids not in found[:n]]
    return [ids for ids in unique if not any(_ends_with(ids, o) for o in unique if o != ids)]


def is_spelled(ids: Sequence[int], answer_spellings: Iterable[Sequence[int]]) -> bool:
    """Whether the last tokens are a spelling."""
    return any(_ends_with(ids, spelling) for spelling in answer_spellings)


def _ends_with(ids: Sequence[int], tail: Sequence[int]) -> bool:
    return list(ids[-len(tail) :]) == list(tail)


def _folds_back(text: str, answer: str) -> bool:
    return any(answer.endswith(text[:n]) for n in range(1, len(text)))
