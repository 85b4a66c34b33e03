"""Fused layers: wired into known models, they give what the layers gave."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from agent.learner.engine.fused_layers import (
    LONGEST,
    PLAIN,
    TRITON,
    VARIABLE,
    Operations,
    fuse,
    kernels_for,
)
from agent.learner.engine.kernels import reference
from agent.learner.engine.kv_cache import KvCache, Prompts
from agent.learner.inference.logits import causal_mask
from agent.learner.training.update import trained_parameters

IDS = torch.tensor([[5, 9, 1, 7, 3], [2, 2, 8, 4, 6]])
SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
}


def llama() -> Any:
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return as_learned(LlamaForCausalLM(LlamaConfig(**SIZES, **heads, max_position_embeddings=512)))


def neox() -> Any:
    return as_learned(
        GPTNeoXForCausalLM(
            GPTNeoXConfig(**SIZES, num_attention_heads=4, max_position_embeddings=512)
        )
    )


def as_learned(model: Any) -> Any:
    """With gradients where updates change something."""
    trained = trained_parameters(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return model


class Counted:
    """Plain operations, and how often each was asked for."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.operations = Operations(
            rms_norm=self._counted("rms_norm"),
            silu_product=self._counted("silu_product"),
            attention=self._counted("attention"),
            decode=self._counted("decode"),
        )

    def _counted(self, name: str) -> Any:
        def operation(*arguments: Any, **named: Any) -> Tensor:
            self.calls.append(name)
            result: Tensor = getattr(reference, name)(*arguments, **named)
            return result

        return operation


@pytest.fixture(params=[llama, neox], ids=["llama", "gpt_neox"])
def models(request: pytest.FixtureRequest) -> tuple[Any, Any, Counted]:
    """A model, a fused copy, and its operations."""
    torch.manual_seed(0)
    model = request.param().eval()
    fused, counted = copy.deepcopy(model), Counted()
    fuse(fused, counted.operations)
    return model, fused, counted


def losses(model: Any, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the gradient of some function of them by each trained weight."""
    logits = model(input_ids=ids, attention_mask=causal_mask(ids), use_cache=False).logits
    trained = list(trained_parameters(model).values())
    return logits, list(torch.autograd.grad(logits.square().mean(), trained))


def test_a_fused_model_gives_the_same_logits_and_gradients(models: tuple[Any, Any, Counted]):
    model, fused, counted = models
    (expected, gradients), (found, found_gradients) = losses(model, IDS), losses(fused, IDS)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_gradients, gradients)
    assert counted.calls.count("attention") == 2
    if "silu_product" in counted.calls:
        assert counted.calls.count("silu_product") == 2
        assert counted.calls.count("rms_norm") == 5


def test_only_llama_has_its_norms_and_activations_fused():
    for make, expected in (
        (llama, {"rms_norm", "silu_product", "attention"}),
        (neox, {"attention"}),
    ):
        model, counted = make(), Counted()
        fuse(model, counted.operations)
        losses(model, IDS)
        assert set(counted.calls) == expected


def test_with_a_cache_or_padding_attention_is_as_it_was(models: tuple[Any, Any, Counted]):
    model, fused, counted = models
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    for arguments in ({"use_cache": True}, {"use_cache": False, "attention_mask": mask}):
        expected, found = (one(input_ids=IDS, **arguments).logits for one in (model, fused))
        torch.testing.assert_close(found, expected)
    assert "attention" not in counted.calls


@torch.inference_mode()
def test_tokens_of_texts_side_by_side_are_decoded(models: tuple[Any, Any, Counted]):
    _, fused, counted = models
    logits = []
    for model in models[:2]:
        slots = KvCache(model, rows=2, width=8)
        rows = torch.arange(2)
        slots.fill(rows, Prompts(model, [[5, 9, 1, 7], [2, 8]]), rows)
        lengths, columns = torch.tensor([3, 1]), slots.columns(8)
        one = slots.read(torch.tensor([[7], [8]]), lengths, columns)
        two = slots.read(torch.tensor([[4], [6]]), lengths + 1, columns)
        ahead = slots.look(rows, torch.tensor([[3, 2], [1, 1]]), lengths + 2, columns)
        logits.append(torch.cat([one, two, ahead], 1))
    torch.testing.assert_close(logits[1], logits[0])
    # Both reads, and what looks ahead.
    assert counted.calls.count("decode") == 3 * fused.config.num_hidden_layers


def test_norms_that_are_trained_get_their_gradient():
    model, counted = llama().requires_grad_(True), Counted()
    fused = copy.deepcopy(model)
    fuse(fused, counted.operations)
    for one in (model, fused):
        one(input_ids=IDS).logits.square().mean().backward()
    torch.testing.assert_close(fused.model.norm.weight.grad, model.model.norm.weight.grad)


def test_long_texts_are_left_to_the_model(models: tuple[Any, Any, Counted]):
    _, fused, counted = models
    for width, expected in ((LONGEST, 2), (LONGEST + 1, 0)):
        counted.calls.clear()
        losses(fused, torch.ones((1, width), dtype=torch.int64))
        assert counted.calls.count("attention") == expected


def test_a_model_of_another_kind_stays_as_it_is():
    model, counted = (
        GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=32, n_layer=1, n_head=2)),
        Counted(),
    )
    fuse(model, counted.operations)
    model(input_ids=IDS)
    assert counted.calls == []


def test_kernels_are_only_for_a_gpu_with_triton(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert (kernels_for("cuda"), kernels_for("cpu")) == (TRITON, PLAIN)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert kernels_for("cuda") == PLAIN
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setenv(VARIABLE, PLAIN)
    assert kernels_for("cuda") == PLAIN
