"""A model's predictions at chosen places of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Texts:
    """Where some texts are among tokens that stand end to end.

    Attributes:
        starts: [B], the first token of each.
        lengths: [B], 0 for one that only fills up.
        longest: none is longer; a multiple of it may cost as much.
        packed: whether they stand in a single row, which only fused layers can take apart.
    """

    starts: Tensor
    lengths: Tensor
    longest: int
    packed: bool


def logits_at(model: Any, input_ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Logits at some places only: the vocabulary is most of the work where a text is short.

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
    """As `logits_at`, for texts end to end: nothing is computed for what would fill them up.

    Args:
        model: a causal LM that `fused.packs_texts`.
        tokens: [1, L], each of one text.
        positions: [1, L], in its text.
        places: [N], in 0..L-1.
        groups: of texts about as long, three tensors each: starts [B] and lengths [B] as in
            `Texts`, and columns [w], w at least as many as the longest has tokens.

    Returns:
        [N, V], fp32.
    """
    # No layer is to read it as a mask.
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
    """[1, 1, T, T], added to attention scores of texts that are padded on the right, [B, T].

    The model would make the same, but with a copy from the host, which no CUDA graph can hold.
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
    """All the texts that a mask of this module stands for; none if it is another one."""
    texts: tuple[Texts, ...] = getattr(mask, "texts", ())
    return texts


@contextmanager
def _head_at(head: Any, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """The output matrix sees chosen places as one row, whatever the model does before and after."""
    hook: Callable[..., Any] = lambda _, hidden: (hidden[0][rows, columns][None],)  # noqa: E731
    handle = head.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
