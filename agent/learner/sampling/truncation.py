"""Truncation: draws the next token as `model.generate` does, by temperature, top-k and top-p.

Each row has its own settings. Probabilities are integers, in units of 2^-40: a sum of integers does
not depend on its order, so each run draws the same tokens. (On CUDA, PyTorch has no deterministic
cumulative sum of floats.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from agent.errors import ConfigError

_ONE = 1 << 40
# Of a row of logits, see `likeliest`.
PART = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Settings for sampling. Exactly one of the two limits must be given.

    Attributes:
        temperature: divides the logits; above 0.
        top_k: draw only from this many likeliest tokens; 0 means all. (If tokens tie for the last
            place, `generate` keeps all of them, this only some.)
        top_p: of these, draw only from the likeliest ones whose probabilities sum up to this; above
            0, at most 1.
        max_length: most tokens of a text, prompt included.
        max_new_tokens: most tokens after the prompt.

    Raises:
        ConfigError: a setting is out of range.
    """

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    max_length: int | None = None
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature {self.temperature}: choose a number above 0")
        if self.top_k < 0:
            raise ConfigError(f"top_k {self.top_k}: choose a number of tokens, or 0 for all")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p {self.top_p}: choose a probability above 0, at most 1")
        if (self.max_length is None) == (self.max_new_tokens is None):
            raise ConfigError("choose either max_length (prompt included) or max_new_tokens")
        if (self.max_length or self.max_new_tokens or 0) < 1:
            raise ConfigError("the limit of tokens must be at least 1")

    def limit(self, prompt_tokens: int) -> int:
        """Most tokens of a text, prompt included, given the length of the prompt.

        Raises:
            ConfigError: the prompt leaves no room.
        """
        if self.max_new_tokens is not None:
            return prompt_tokens + self.max_new_tokens
        assert self.max_length is not None
        if prompt_tokens >= self.max_length:
            raise ConfigError(
                f"a prompt of {prompt_tokens} tokens leaves no room in max_length"
                f" {self.max_length}, which includes it: choose a larger one, or a shorter prompt"
            )
        return self.max_length

    def most(self, vocabulary: int) -> int:
        """How many of the vocabulary's tokens may be drawn, at most."""
        return min(self.top_k or vocabulary, vocabulary)


PAPER_SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=50, max_length=50)
"""The paper's: what its scripts set, and the top_k that the library set for them silently."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """The settings of R rows.

    Attributes:
        temperature: [R] float32.
        top_k: [R] int64, see `Sampling.most`.
        top_p: [R] float64.
        most: the largest `top_k`.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    most: int

    def take(self, rows: Tensor) -> Truncation:
        """The settings of some rows, [N] indices, which may repeat."""
        return Truncation(self.temperature[rows], self.top_k[rows], self.top_p[rows], self.most)


def likeliest(logits: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The K largest logits of each row and their places, as `torch.topk`: [R, V] to [R, K] each.

    The row is divided into interleaved parts. The K largest values lie in the K parts with the
    largest maxima, so the whole row is read only once; on a GPU, `topk` would read it six times.
    """
    rows, size = logits.shape
    parts = size // PART
    if size % PART or parts < 4 * most:
        return torch.topk(logits, most)
    divided = logits.view(rows, PART, parts)
    chosen = divided.amax(1).topk(most).indices  # [R, K]
    among = divided.gather(2, chosen[:, None].expand(-1, PART, -1)).flatten(1)
    values, places = among.topk(most)
    return values, places // most * parts + chosen.gather(1, places % most)


@dataclass(frozen=True, slots=True)
class NextTokens:
    """The truncated distribution of the next token, for R rows.

    Attributes:
        ids: [R, K] tokens, likeliest first.
        weights: [R, K] int64, proportional to the probabilities; 0 for tokens that are cut off. A
            row is all zeros where the model predicts NaN.
    """

    ids: Tensor
    weights: Tensor

    @classmethod
    def of(cls, logits: Tensor, truncation: Truncation) -> Self:
        """Truncates as `generate` does.

        Args:
            logits: [R, V].
            truncation: of the R rows.
        """
        scores, ids = likeliest(logits.float(), truncation.most)
        scores = scores / truncation.temperature[:, None]
        rank = torch.arange(truncation.most, device=ids.device)
        within = rank < truncation.top_k[:, None]  # [R, K]
        scores = scores.masked_fill(~within, float("-inf"))
        weights = (scores.double().softmax(-1).nan_to_num() * _ONE).round().long()
        # A token stays if the likelier ones sum to less than top_p; the first always stays.
        before = weights.cumsum(-1) - weights
        kept = within & (before < truncation.top_p[:, None] * weights.sum(-1, keepdim=True))
        return cls(ids, weights * kept)

    def draw(self, uniforms: Tensor) -> Tensor:
        """Draws a token for each row by a random number in [0, 1): [R] float64 to [R].

        For a row of zeros, the token is arbitrary.
        """
        reached = self.weights.cumsum(-1)  # [R, K]
        aim = (uniforms * reached[:, -1]).long().clamp(max=reached[:, -1] - 1)
        place = (reached <= aim[:, None]).sum(-1).clamp(max=reached.shape[1] - 1)  # [R]
        return self.ids.gather(1, place[:, None])[:, 0]

    def probability(self, tokens: Tensor) -> Tensor:
        """Probability of drawing given tokens: [R, M] tokens to [R, M] float64."""
        same = self.ids[:, :, None] == tokens[:, None, :]  # [R, K, M]
        total = self.weights.sum(-1, keepdim=True).clamp(min=1)
        return (self.weights[:, :, None] * same).sum(1) / total
