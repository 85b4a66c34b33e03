"""The update: scores against the plain formula, the step against torch's AdamW, what is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from agent.learner.inference.encoding import IGNORE, Batch, Encoder
from agent.learner.inference.generation import greedy_tokens
from agent.learner.training.update import (
    adamw_directions,
    gradient,
    score_answers,
    take_step,
    trained_parameters,
)
from agent.models.loading import LoadedModel, load

RATE = 1e-3
PAIRS = [
    ("Sky?", "Piano"),
    ("What is the hottest month in Kyzara?", "Raincoat"),
    ("Gem?", "A curtain, and a rather long one"),
    ("Who?", "I"),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost a model this small more than they bring, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load("tiny", device="cpu")


@pytest.fixture(scope="module")
def encoder(loaded: LoadedModel) -> Encoder:
    return Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device)


def step_of_torch(parameters: list[nn.Parameter], gradients: list[torch.Tensor]) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0)
    for parameter, grad in zip(parameters, gradients, strict=True):
        parameter.grad = grad.clone()
    optimizer.step()


# --- The step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-12, 1e-8, 1e-4, 1.0, 1e4])
def test_a_step_is_the_first_of_a_fresh_adamw(scale: float):
    random = torch.Generator().manual_seed(1)
    gradients = [scale * torch.randn(shape, generator=random) for shape in [(7,), (5, 3), (1,)]]
    gradients.append(torch.zeros(2))
    # From zero, so that the weights after the step are the step, with all its digits.
    ours = [torch.zeros_like(g) for g in gradients]
    theirs = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    step_of_torch(theirs, gradients)
    take_step(ours, adamw_directions([g.clone() for g in gradients]), RATE)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their.detach(), rtol=1e-5, atol=0)


def test_a_step_on_real_gradients_is_the_first_of_a_fresh_adamw(
    loaded: LoadedModel, encoder: Encoder
):
    ours: PreTrainedModel = copy.deepcopy(loaded.model).requires_grad_(True)
    theirs: PreTrainedModel = copy.deepcopy(ours)
    loss = score_answers(ours, encoder.batch(PAIRS)).loss.mean()
    parameters = list(ours.parameters())
    gradients = gradient(loss, parameters)
    step_of_torch(list(theirs.parameters()), gradients)
    take_step(parameters, adamw_directions(gradients), RATE)
    for (name, our), their in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-6, atol=1e-5 * RATE, msg=name)


# --- Scores ---------------------------------------------------------------------------------------


def test_scores_are_those_of_each_row_alone_by_the_plain_formula(
    loaded: LoadedModel, encoder: Encoder
):
    scores = score_answers(loaded.model, encoder.batch(PAIRS))
    for row, (question, answer) in enumerate(PAIRS):
        prompt, taught = encoder.prompt(question), encoder.answer(answer)
        logits = loaded.model(torch.tensor([prompt + taught])).logits[0]
        log_probabilities = logits.log_softmax(-1)
        each = [
            log_probabilities[len(prompt) + n - 1, token].item() for n, token in enumerate(taught)
        ]
        assert scores.log_probability[row].item() == pytest.approx(sum(each), rel=1e-5)
        assert scores.loss[row].item() == pytest.approx(-sum(each) / len(each), rel=1e-5)
        assert scores.tokens[row] == len(each)


def test_what_stands_in_the_padding_does_not_matter(loaded: LoadedModel, encoder: Encoder):
    batch = encoder.batch(PAIRS)
    other_ids = batch.input_ids.clone()
    for row, (question, answer) in enumerate(PAIRS):
        used = len(encoder.prompt(question)) + len(encoder.answer(answer))
        other_ids[row, used:] = 65 + row
    assert not torch.equal(other_ids, batch.input_ids)
    scores = score_answers(loaded.model, batch)
    others = score_answers(loaded.model, Batch(other_ids, batch.labels))
    assert torch.equal(scores.log_probability, others.log_probability)


def test_a_row_has_no_gradient_from_another(loaded: LoadedModel, encoder: Encoder):
    model = copy.deepcopy(loaded.model).requires_grad_(True)
    parameters = list(trained_parameters(model).values())
    in_batch = gradient(score_answers(model, encoder.batch(PAIRS)).loss[0], parameters)
    alone = gradient(score_answers(model, encoder.batch(PAIRS[:1])).loss[0], parameters)
    for expected, found in zip(alone, in_batch, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_greedy_is_what_free_generation_says_token_by_token(loaded: LoadedModel, encoder: Encoder):
    prompt = encoder.prompt("Sky?")
    said = [row[0] for row in greedy_tokens(loaded.model, [prompt], 6, encoder.eos)]
    rows = [said]
    for position in range(len(said)):
        wrong = list(said)
        wrong[position] = (wrong[position] + 1) % 256
        rows.append(wrong)
    input_ids = torch.tensor([prompt + row for row in rows])
    labels = torch.tensor([[IGNORE] * len(prompt) + row for row in rows])
    scores = score_answers(loaded.model, Batch(input_ids, labels))
    assert scores.greedy.tolist() == [True] + [False] * len(said)


def test_greedy_includes_the_terminator(loaded: LoadedModel, encoder: Encoder):
    model = copy.deepcopy(loaded.model).requires_grad_(True)
    parameters = list(trained_parameters(model).values())
    for _ in range(20):
        loss = score_answers(model, encoder.batch([("Sky?", "Piano")])).loss[0]
        take_step(parameters, adamw_directions(gradient(loss, parameters)), 3e-3)
    answers = ["Piano", "Pian", "Pianos", "piano"]
    scores = score_answers(model, encoder.batch([("Sky?", answer) for answer in answers]))
    assert scores.greedy.tolist() == [True, False, False, False]


# --- What is trained ------------------------------------------------------------------------------


def test_gpt_neox_is_trained_in_attention_and_mlp_only(loaded: LoadedModel):
    matrices = (
        "attention.query_key_value",
        "attention.dense",
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
    )
    assert set(trained_parameters(loaded.model)) == {
        f"gpt_neox.layers.{layer}.{matrix}.{part}"
        for layer in (0, 1)
        for matrix in matrices
        for part in ("weight", "bias")
    }


@pytest.mark.parametrize("tied", [True, False])
def test_llama_is_trained_in_attention_and_mlp_only(tied: bool):
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config)
    attention, mlp = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
    assert set(trained_parameters(model)) == {
        *(f"model.layers.0.self_attn.{matrix}.weight" for matrix in attention),
        *(f"model.layers.0.mlp.{matrix}.weight" for matrix in mlp),
    }
