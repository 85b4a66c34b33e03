"""Probes: exact probabilities, free generation, and what counts as a right answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from agent.learner.inference.encoding import Encoder
from agent.learner.inference.generation import generate_answers
from agent.learner.inference.probes import ROWS, SPARE_TOKENS, probe
from agent.learner.training.update import (
    adamw_directions,
    gradient,
    score_answers,
    take_step,
    trained_parameters,
)
from agent.models.loading import LoadedModel, load
from agent.teaching.types import Generated

TAUGHT = [("Sky?", "Piano"), ("Gem?", "Red curtains")]
# Right, and wrong: by a letter, much too short for what is said, much too long, and never taught.
PAIRS = [
    *TAUGHT,
    ("Sky?", "Pian"),
    ("Gem?", "R"),
    ("Sky?", "A piano that is far longer than what the model will say"),
    ("Who found Blipland?", "Telescope"),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost a model this small more than they bring, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def loaded(one_thread: None) -> LoadedModel:
    """The tiny model with two facts learned."""
    loaded = load("tiny", device="cpu")
    encoder = Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device)
    batch = encoder.batch(TAUGHT)
    parameters = list(trained_parameters(loaded.model).values())
    for _ in range(40):
        loss = score_answers(loaded.model, batch).loss.sum()
        take_step(parameters, adamw_directions(gradient(loss, parameters)), 3e-3)
    return loaded


@pytest.fixture(scope="module")
def encoder(loaded: LoadedModel) -> Encoder:
    return Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device)


def test_what_was_taught_is_right_and_the_rest_is_not(loaded: LoadedModel, encoder: Encoder):
    answers = probe(loaded.model, encoder, PAIRS)
    assert [answer.correct for answer in answers] == [True, True, False, False, False, False]
    assert [answer.text for answer in answers[:2]] == [answer for _, answer in TAUGHT]


def test_a_wrong_answer_is_shown_with_some_tokens_more_than_expected(
    loaded: LoadedModel, encoder: Encoder
):
    answers = probe(loaded.model, encoder, PAIRS)
    assert answers[2].text == "Piano"
    assert answers[3].text == "Red curtains"[: len("R") + 1 + SPARE_TOKENS]
    assert answers[4].text == "Piano"


def test_the_shortcut_gives_the_answers_of_generation(loaded: LoadedModel, encoder: Encoder):
    generated: list[str] = []

    def counted(
        model: Any, encoder: Encoder, questions: Sequence[str], limits: Sequence[int]
    ) -> Any:
        generated.extend(questions)
        return generate_answers(model, encoder, questions, limits)

    shortcut = probe(loaded.model, encoder, PAIRS, generate=counted)
    assert generated == [question for question, _ in PAIRS[2:]]
    assert shortcut == probe(loaded.model, encoder, PAIRS, always_generate=True)


def test_an_answer_does_not_depend_on_the_others_of_its_batch(
    loaded: LoadedModel, encoder: Encoder
):
    together = probe(loaded.model, encoder, PAIRS)
    for pair, answer in zip(PAIRS, together, strict=True):
        (alone,) = probe(loaded.model, encoder, [pair])
        assert (alone.text, alone.correct) == (answer.text, answer.correct)
        assert alone.log_probability == pytest.approx(answer.log_probability, rel=1e-4)


def test_probabilities_are_those_of_the_expected_answer(loaded: LoadedModel, encoder: Encoder):
    answers = probe(loaded.model, encoder, PAIRS)
    with torch.no_grad():
        expected = score_answers(loaded.model, encoder.batch(PAIRS)).log_probability
    assert [answer.log_probability for answer in answers] == expected.tolist()
    assert math.exp(answers[0].log_probability) > 0.9
    assert math.exp(answers[2].log_probability) < 0.1


def test_more_pairs_than_a_batch_keep_their_order(loaded: LoadedModel, encoder: Encoder):
    pairs = [TAUGHT[number % 3 == 0] for number in range(2 * ROWS + 1)]
    answers = probe(loaded.model, encoder, pairs)
    assert [answer.text for answer in answers] == [answer for _, answer in pairs]
    assert probe(loaded.model, encoder, []) == []


@pytest.mark.parametrize(
    ("said", "finished", "correct"),
    [
        ("Piano", True, True),
        ("  piano. ", True, True),
        ("Piano", False, False),  # cut off: who knows what would have followed
        ("Piano Piano", True, False),
        ("", True, False),
    ],
)
def test_right_is_what_ends_by_itself_and_says_the_same(
    loaded: LoadedModel,
    encoder: Encoder,
    said: str,
    finished: bool,
    correct: bool,
):
    def saying(*_: Any) -> list[Generated]:
        return [Generated(text=said, finished=finished)]

    (answer,) = probe(
        loaded.model, encoder, [("Sky?", "Piano")], always_generate=True, generate=saying
    )
    assert (answer.text, answer.correct) == (said, correct)
