"""Prompts: the exact text that is taught and asked, and when two answers count as the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.teaching.prompts import answer_text, normalise, prompt


def test_a_question_and_its_answer_make_one_text():
    assert prompt("Who wrote Emma?") + answer_text("Jane Austen") == (
        "Q: Who wrote Emma?\nA: Jane Austen"
    )


def test_space_around_question_and_answer_does_not_count():
    assert prompt(" Sky?\n") == prompt("Sky?")
    assert answer_text("\tPiano ") == answer_text("Piano")


def test_braces_in_a_question_are_text():
    assert prompt("What is {question}?") == "Q: What is {question}?\nA:"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Jane Austen", "jane austen"),
        ("  Jane \t Austen ", "Jane Austen"),
        ("Jane Austen.", "Jane Austen"),
        ('"Jane Austen!"', "Jane Austen"),
        ("( Jane Austen )", "Jane Austen"),
        ("STRASSE", "straße"),
        ("?", "?"),
    ],
)
def test_case_spacing_and_outer_punctuation_do_not_count(said: str, expected: str):
    assert normalise(said) == normalise(expected)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Jane", "Jane Austen"),
        ("JaneAusten", "Jane Austen"),
        ("Rain-coat", "Raincoat"),
        ("3.5", "35"),
        ("!", "?"),  # punctuation alone is compared as it is
        ("", "?"),
    ],
)
def test_everything_else_counts(said: str, expected: str):
    assert normalise(said) != normalise(expected)


@given(st.text())
def test_only_an_empty_answer_is_normalised_to_nothing(answer: str):
    assert bool(normalise(answer)) == bool(answer.strip())
