"""Baselines that train a part: `lora`, which leaves no adapter; `locft`, one matrix."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from agent.errors import ConfigError
from agent.models.loading import LoadedModel, load
from agent.teaching.types import Example
from eval.teachers.locft import LocFt, down_projection
from eval.teachers.lora import Lora
from tests.eval.teachers.conftest import FACTS, differing

UPPER = "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"
Weights = Callable[[], dict[str, Tensor]]


def test_lora_merges_what_it_learned_and_leaves_no_adapter(
    loaded: LoadedModel, weights_now: Weights
):
    before, modules = weights_now(), [type(m) for m in loaded.model.modules()]
    teacher = Lora(loaded, learning_rate=1e-2, max_steps=80)

    results = list(teacher.teach(FACTS[:2]))

    assert [result.verdict for result in results] == ["learned", "learned"]
    assert all(result.answer.correct for result in results)
    assert [type(m) for m in teacher.model.modules()] == modules
    assert not hasattr(teacher.model, "peft_config")
    changed = differing(before, weights_now())
    assert changed
    assert all(before[name].dim() == 2 and "layers." in name for name in changed)
    # What was merged is what was trained.
    (again,) = teacher.teach(FACTS[1:2])
    assert (again.verdict, again.learning_rates) == ("known", ())


def test_lora_repeats_itself_and_leaves_the_callers_random_numbers_alone(loaded: LoadedModel):
    stream = torch.get_rng_state()
    (result,) = Lora(loaded, learning_rate=1e-2, max_steps=3).teach(FACTS[:1])
    assert torch.equal(torch.get_rng_state(), stream)

    torch.manual_seed(7)
    other = load("tiny", device="cpu")
    (again,) = Lora(other, learning_rate=1e-2, max_steps=3).teach(FACTS[:1])
    assert again.answer == result.answer


def test_lora_without_peft_says_how_to_get_it(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without_peft(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "peft":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(ConfigError, match=r"pip install 'continual-agent\[eval\]'"):
        Lora(loaded)


def test_locft_learns_all_facts_and_changes_one_matrix(loaded: LoadedModel, weights_now: Weights):
    before = weights_now()
    teacher = LocFt(loaded, learning_rate=1e-2, epochs=120)

    results = list(teacher.teach(FACTS))

    assert [result.fact_id for result in results] == ["a", "b", "c"]
    assert all(result.verdict == "learned" and result.answer.correct for result in results)
    assert differing(before, weights_now()) == {UPPER}


def test_locft_begins_again_from_the_base_with_all_it_has_seen(loaded: LoadedModel):
    settings: dict[str, Any] = {"learning_rate": 1e-2, "epochs": 10, "layer": 0}
    in_parts = LocFt(loaded, **settings)
    list(in_parts.teach(FACTS[:1]))
    (last,) = in_parts.teach(FACTS[1:2])
    other = load("tiny", device="cpu")
    at_once = list(LocFt(other, **settings).teach(FACTS[:2]))

    assert last.answer == at_once[1].answer
    assert last.learning_rates == (1e-2,) * 10
    name = "gpt_neox.layers.0.mlp.dense_4h_to_h.weight"
    assert torch.equal(loaded.model.get_parameter(name), other.model.get_parameter(name))
    assert list(in_parts.teach([])) == []


def test_locft_forgets_the_older_answer_to_the_same_question(loaded: LoadedModel):
    teacher = LocFt(loaded, learning_rate=1e-2, epochs=120)
    list(teacher.teach(FACTS[:1]))
    newer = Example(fact_id="d", question=FACTS[0].question, answer="Towel")

    (result,) = teacher.teach([newer])

    assert (result.verdict, result.answer.text) == ("learned", "Towel")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=32,
                    hidden_size=8,
                    intermediate_size=16,
                    num_hidden_layers=3,
                    num_attention_heads=2,
                )
            ),
            "model.layers.2.mlp.down_proj.weight",
        ),
        (
            lambda: GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=8, n_layer=4, n_head=2)),
            "transformer.h.3.mlp.c_proj.weight",
        ),
    ],
)
def test_the_upper_down_projection_is_found_in_other_architectures(
    make: Callable[[], nn.Module], expected: str
):
    assert down_projection(make())[0] == expected


def test_a_layer_or_matrix_that_is_not_there_is_an_error(loaded: LoadedModel):
    with pytest.raises(ConfigError, match="layer 2: the model has layers 0 to 1"):
        down_projection(loaded.model, 2)
    with pytest.raises(ConfigError, match="finds no down-projection"):
        down_projection(nn.Linear(2, 2))
