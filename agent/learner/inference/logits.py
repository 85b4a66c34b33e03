"""Logits of a model at chosen places of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Texts:
    """The position of texts among tokens that are laid end to end.

    Attributes:
        starts: [B] index of each text's first token.
        lengths: [B] number of its tokens; 0 for padding.
        longest: upper bound of the lengths.
        packed: whether all texts are in a single row, which only fused layers can separate.
    """

    starts: Tensor
    lengths: Tensor
    longest: int
    packed: bool


def logits_at(model: Any, input_ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Logits at chosen places only: for short texts, the output matrix is most of the work.

    Args:
        model: a causal LM.
        input_ids: [B, T].
        rows: [N], in 0..B-1.
        columns: [N], in 0..T-1.

    Returns:
        [N, V], fp32.
    """
    mask = causal_mask(input_ids) if input_ids.is_cuda else None
    with _head_at(model.get_output_embeddings(), rows, columns):
        logits: Tensor = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
    return logits[0].float()


def packed_logits_at(
    model: Any,
    tokens: Tensor,
    positions: Tensor,
    places: Tensor,
    *groups: Tensor,
) -> Tensor:
    """As `logits_at`, for texts that are laid end to end, so that no padding is computed.

    Args:
        model: a causal LM, see `fused_layers.packs_texts`.
        tokens: [1, L], of all texts.
        positions: [1, L], of each token in its text.
        places: [N], in 0..L-1.
        groups: three tensors for each group of texts of similar length: starts [B] and lengths [B]
            as in `Texts`, and a range [w] with w at least the longest length.

    Returns:
        [N, V], fp32.
    """
    # It only carries `texts`: no layer uses it as a mask.
    mask = torch.zeros((1, 1, 1, 1), device=tokens.device)
    mask.texts = tuple(  # type: ignore[attr-defined]
        Texts(groups[n], groups[n + 1], len(groups[n + 2]), packed=True)
        for n in range(0, len(groups), 3)
    )
    with _head_at(model.get_output_embeddings(), torch.zeros_like(places), places):
        logits: Tensor = model(
            input_ids=tokens, position_ids=positions, attention_mask=mask, use_cache=False
        ).logits
    return logits[0].float()


def causal_mask(input_ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """[1, 1, T, T] causal mask for texts [B, T] that are padded on the right.

    The model would make the same one with a copy from the host, which a CUDA graph cannot contain.
    """
    batch, width = input_ids.shape
    lowest = torch.finfo(dtype).min
    mask = torch.full((width, width), lowest, dtype=dtype, device=input_ids.device).triu(1)
    mask = mask[None, None]
    starts = torch.arange(batch, device=input_ids.device) * width
    texts = Texts(starts, torch.full_like(starts, width), width, packed=False)
    mask.texts = (texts,)  # type: ignore[attr-defined]
    return mask


def texts_of(mask: Tensor | None) -> tuple[Texts, ...]:
    """The texts of a mask made by this module; empty for other masks."""
    texts: tuple[Texts, ...] = getattr(mask, "texts", ())
    return texts


@contextmanager
def _head_at(head: Any, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Gives the output matrix only the hidden states of the chosen places, as one row [1, N, D]."""
    hook: Callable[..., Any] = lambda _, hidden: (hidden[0][rows, columns][None],)  # noqa: E731
    handle = head.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
