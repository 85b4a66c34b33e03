"""Texts sampled by a copy in half precision are those of the model, as near as products of TF32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from agent.learner.engine.fp16_copy import Fp16Copy
from agent.learner.engine.fused_layers import Operations, fuse
from agent.learner.engine.kernels import reference
from agent.learner.sampling.sampler import Cell, Sampler, Sampling
from tests.learner.letters import EOS, Letters, small_model
from tests.learner.models import one_thread

FAMILIES = ["gpt_neox", "llama", "gpt2"]
IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 0]])
CELLS = [
    Cell(
        prompt=prompt,
        answer=answer,
        samples=400,
        sampling=Sampling(top_k=9, max_new_tokens=6),
        key=prompt,
        estimate=True,
    )
    for prompt, answer in (("ab", "fa"), ("c d", "eg"))
]


@pytest.fixture(scope="module", autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


def sampler(model: Any, *, half: bool) -> Sampler:
    return Sampler(model, Letters(), eos=EOS, rows=64, half=half)


def distance(some: torch.Tensor, others: torch.Tensor) -> float:
    return float((some - others).norm() / others.norm())


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_a_copy_predicts_what_its_model_predicts(family: str) -> None:
    model = small_model(family)
    copied = Fp16Copy(model).model
    found = copied(input_ids=IDS).logits
    assert found.dtype == torch.float32
    assert 0 < distance(found, model(input_ids=IDS).logits) < 1e-2
    assert {p.dtype for p in copied.parameters()} == {torch.float16}
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_a_copy_follows_its_model_when_it_is_told_to(family: str) -> None:
    model = small_model(family)
    half = Fp16Copy(model)
    before = half.model(input_ids=IDS).logits
    inner = [
        p for name, p in model.named_parameters() if "lm_head" not in name and "wte" not in name
    ]
    for parameter in inner:
        parameter.mul_(1.5)
    assert torch.equal(half.model(input_ids=IDS).logits, before)
    places = [p.data_ptr() for p in half.model.parameters()]
    half.follow()
    assert [p.data_ptr() for p in half.model.parameters()] == places
    assert distance(half.model(input_ids=IDS).logits, model(input_ids=IDS).logits) < 1e-2


@torch.inference_mode()
def test_layers_of_a_copy_are_fused_on_their_own() -> None:
    model = small_model("llama")
    operations = Operations(
        reference.rms_norm, reference.silu_product, reference.attention, reference.decode
    )
    fuse(model, operations)
    copied = Fp16Copy(model).model
    assert {module.forward.args[0] is module for module in copied.modules() if _fused(module)} == {
        True
    }
    assert any(map(_fused, copied.modules()))


def _fused(module: Any) -> bool:
    return "forward" in vars(module)


@pytest.mark.parametrize("family", FAMILIES)
def test_nearly_all_samples_are_those_of_the_model(family: str) -> None:
    model = small_model(family)
    for ours, theirs in zip(
        sampler(model, half=True).sample(CELLS),
        sampler(model, half=False).sample(CELLS),
        strict=True,
    ):
        # The same random numbers: only a draw next to a boundary comes out otherwise.
        assert abs(ours.correct - theirs.correct) <= 4
        assert abs(ours.tokens - theirs.tokens) <= 40
        assert ours.estimate is not None
        assert theirs.estimate is not None
        assert ours.estimate.probability == pytest.approx(theirs.estimate.probability, rel=0.05)


def test_weights_may_change_between_two_calls() -> None:
    model = small_model()
    both = sampler(model, half=True)
    first = both.sample(CELLS)
    model.load_state_dict(small_model(seed=1).state_dict())
    assert both.sample(CELLS) == sampler(small_model(seed=1), half=True).sample(CELLS) != first


def test_texts_beyond_the_range_of_half_precision_are_sampled_by_the_model() -> None:
    model = small_model()
    with torch.no_grad():
        # Norms make a state of it that fp32 has no trouble with.
        model.get_input_embeddings().weight[1] *= 1e6  # "a", as in the first prompt
    assert not Fp16Copy(model).model(input_ids=IDS).logits.isfinite().all()
    in_half = sampler(model, half=True)
    found = in_half.sample(CELLS[:1])
    assert found == sampler(model, half=False).sample(CELLS[:1])
    assert found[0].tokens > 2 * found[0].samples
    # Of the other prompt the first tokens are sampled before one is met.
    [other] = in_half.sample(CELLS[1:])
    [expected] = sampler(model, half=False).sample(CELLS[1:])
    assert other.samples == expected.samples
    assert abs(other.correct - expected.correct) <= 4


def test_a_model_of_nan_says_nothing_in_half_precision_either() -> None:
    broken = small_model()
    in_half = sampler(broken, half=True)
    with torch.no_grad():
        broken.get_output_embeddings().weight.fill_(float("nan"))
    for cell, found in zip(CELLS, in_half.sample(CELLS), strict=True):
        assert (found.correct, found.tokens) == (0, cell.samples)
