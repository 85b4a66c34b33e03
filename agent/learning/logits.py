"""A model's predictions at chosen places of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


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
    mask = _causal_mask(input_ids) if input_ids.is_cuda else None
    with _head_at(model.get_output_embeddings(), rows, columns):
        logits: Tensor = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
    return logits[0].float()


def _causal_mask(input_ids: Tensor) -> Tensor:
    """[1, 1, T, T], added to attention scores.

    The model would make the same, but with a copy from the host, which no CUDA graph can hold.
    """
    width = input_ids.shape[1]
    lowest = torch.finfo(torch.float32).min
    mask = torch.full((width, width), lowest, device=input_ids.device).triu(1)
    mask = mask[None, None]
    mask.plainly_causal = True  # type: ignore[attr-defined]
    return mask


def is_plainly_causal(mask: Tensor | None) -> bool:
    """Whether a mask is one that `logits_at` made."""
    plainly: bool = getattr(mask, "plainly_causal", False)
    return plainly


@contextmanager
def _head_at(head: Any, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """The output matrix sees chosen places as one row, whatever the model does before and after."""
    hook: Callable[..., Any] = lambda _, hidden: (hidden[0][rows, columns][None],)  # noqa: E731
    handle = head.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
