"""Layers of known models, with their small operations fused into kernels on a GPU.

PyTorch launches a layer of Llama as some forty kernels forward and twice as many back, most of them
shorter than their launch. What is replaced gives what it gave but for rounding: in passes over
texts without a cache, as updates make them, and in steps of texts that are sampled side by side.
With a cache of another kind (answers) attention works as it did.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXAttention
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm

from agent.learner.engine.kv_cache import kv_layer_of
from agent.learner.inference.logits import texts_of

PLAIN, TRITON = "plain", "triton"
VARIABLE = "AGENT_KERNELS"
# Tokens of the longest text that attention is fused for.
LONGEST = 128


@dataclass(frozen=True, slots=True)
class Operations:
    """What layers are fused of; `agent.learner.engine.kernels.reference` has what they compute."""

    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    silu_product: Callable[[Tensor, Tensor], Tensor]
    attention: Callable[..., Tensor]
    decode: Callable[..., Tensor]

    @classmethod
    def by_triton(cls) -> Self:
        """The kernels.

        Raises:
            ImportError: there is no Triton here.
        """
        from agent.learner.engine.kernels.activation import silu_product
        from agent.learner.engine.kernels.attention import attention
        from agent.learner.engine.kernels.decoding import decode
        from agent.learner.engine.kernels.norm import rms_norm

        return cls(rms_norm, silu_product, attention, decode)


def kernels_for(device: str) -> str:
    """Which kernels updates on a kind of device are made with; part of what they depend on."""
    wanted = os.environ.get(VARIABLE, TRITON) == TRITON
    found = importlib.util.find_spec("triton") is not None
    return TRITON if device == "cuda" and wanted and found else PLAIN


def fuse(model: nn.Module, operations: Operations) -> None:
    """Replaces what can be replaced in a model, for good; again, it changes nothing."""
    for module in model.modules():
        forward = _forward_of(module)
        if forward is not None:
            # An attribute of the object hides the method of its class.
            module.forward = partial(forward, module, operations)


def packs_texts(model: nn.Module) -> bool:
    """Whether all attention is fused, so that texts of at most `LONGEST` can stand end to end."""
    config: Any = model.config
    layers: int = config.get_text_config().num_hidden_layers
    fused = [
        module
        for module in model.modules()
        if isinstance(module, GPTNeoXAttention | LlamaAttention) and "forward" in vars(module)
    ]
    return len(fused) == layers


def _forward_of(module: nn.Module) -> Callable[..., Any] | None:
    """What takes the place of a module's forward; None if it stays."""
    if isinstance(module, LlamaRMSNorm):
        return _norm
    if isinstance(module, LlamaMLP) and module.config.hidden_act == "silu":
        return _gated
    if isinstance(module, LlamaAttention) and _fits(module.head_dim):
        return _llama_attention
    if isinstance(module, GPTNeoXAttention) and _fits(module.head_size):
        return _neox_attention
    return None


def _fits(width: int) -> bool:
    """Whether a head is as wide as the kernel can take."""
    return width >= 16 and width & (width - 1) == 0


def _norm(self: Any, operations: Operations, hidden_states: Tensor) -> Any:
    # The kernel has no gradient for the weight.
    if torch.is_grad_enabled() and self.weight.requires_grad:
        return type(self).forward(self, hidden_states)
    return operations.rms_norm(hidden_states, self.weight, self.variance_epsilon)


def _gated(self: Any, operations: Operations, x: Tensor) -> Any:
    return self.down_proj(operations.silu_product(self.gate_proj(x), self.up_proj(x)))


def _llama_attention(
    self: Any, operations: Operations, hidden_states: Tensor, **kwargs: Any
) -> Any:
    attend = _attending(self, operations, hidden_states, kwargs.get("past_key_values"), kwargs)
    if attend is None:
        return type(self).forward(self, hidden_states, **kwargs)
    heads = (*hidden_states.shape[:-1], -1, self.head_dim)
    parts = (
        project(hidden_states).view(heads) for project in (self.q_proj, self.k_proj, self.v_proj)
    )
    return self.o_proj(attend(*parts).flatten(2)), None


def _neox_attention(self: Any, operations: Operations, hidden_states: Tensor, **kwargs: Any) -> Any:
    attend = _attending(self, operations, hidden_states, kwargs.get("layer_past"), kwargs)
    if attend is None:
        return type(self).forward(self, hidden_states, **kwargs)
    heads = (*hidden_states.shape[:-1], -1, 3 * self.head_size)
    parts = self.query_key_value(hidden_states).view(heads).chunk(3, dim=-1)
    return self.dense(attend(*parts).flatten(2)), None


def _attending(
    self: Any, operations: Operations, hidden_states: Tensor, cache: Any, kwargs: dict[str, Any]
) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """[B, T, H, D] from queries, keys and values of heads; None if the layer is to do it."""
    cos, sin = kwargs["position_embeddings"]  # [B or 1, T, R] each
    tokens = hidden_states.shape[1]
    if cache is None:
        texts = texts_of(kwargs["attention_mask"])
        if not texts or any(some.longest > LONGEST for some in texts):
            assert not any(some.packed for some in texts)
            return None
        return partial(
            operations.attention, cos=cos[0], sin=sin[0], texts=texts, scaling=self.scaling
        )
    slots = kv_layer_of(cache, self.layer_idx)
    if slots is None or torch.is_grad_enabled() or (tokens > 1 and slots.looked_at is None):
        return None
    return partial(
        operations.decode,
        cos=cos,
        sin=sin,
        keys=slots.keys,
        values=slots.values,
        place=slots.place,
        scaling=self.scaling,
        slots=slots.looked_at,
    )
