"""Encoding: which tokens are input, which are taught, and that no text is a control token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agent.learner.inference.encoding import IGNORE, Encoder
from agent.models.tiny import build_tiny

EOS = 256
TOKENIZER = build_tiny()[1]
ENCODER = Encoder(TOKENIZER, EOS, torch.device("cpu"))


def test_only_the_answer_and_the_terminator_are_taught():
    batch = ENCODER.batch([("Sky?", "Piano"), ("Who found Blipland?", "Me")])
    question, answer = b"Q: Who found Blipland?\nA:", b" Me"
    assert batch.input_ids[1].tolist() == [*question, *answer, EOS]
    assert batch.labels[1].tolist() == [IGNORE] * len(question) + [*answer, EOS]


def test_shorter_rows_are_padded_on_the_right_and_not_taught_there():
    batch = ENCODER.batch([("Sky?", "Piano"), ("Who found Blipland?", "Me")])
    text = b"Q: Sky?\nA: Piano"
    padding = batch.input_ids.shape[1] - len(text) - 1
    assert padding > 0
    assert batch.input_ids[0].tolist() == [*text, EOS] + [EOS] * padding
    assert batch.labels[0, -padding - 1 :].tolist() == [EOS] + [IGNORE] * padding


@pytest.mark.parametrize("text", ["<|endoftext|>", "a<|endoftext|>b", "<|endoftext|><|endoftext|>"])
def test_the_text_of_a_special_token_is_spelled_out(text: str):
    assert ENCODER.prompt(text) == list(f"Q: {text}\nA:".encode())
    assert ENCODER.answer(text) == [*f" {text}".encode(), EOS]
    assert ENCODER.decode(ENCODER.answer(text)) == f" {text}"


@given(st.text())
def test_an_answer_survives_its_tokens(answer: str):
    assert ENCODER.decode(ENCODER.answer(answer)) == " " + answer.strip()


@given(st.lists(st.lists(st.integers(min_value=0, max_value=EOS), max_size=9)))
def test_many_rows_are_decoded_as_one_by_one(rows: list[list[int]]):
    assert ENCODER.decode_all(rows) == [ENCODER.decode(row) for row in rows]
