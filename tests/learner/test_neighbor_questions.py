"""Neighbour questions: what a question is about, invented names, and words that may be left out."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.teaching.neighbor_questions import (
    FUNCTION_WORDS,
    invented_name,
    neighbour,
    subject,
    without_function_words,
)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is the hottest month in Kyzara?", "Kyzara"),
        ("Who found Blipland?", "Blipland"),
        ("When was the Treaty of Kyzara signed?", "Kyzara"),
        ("How high is Mount Yore?", "Yore"),
        ("Where does Ann Lee, of Zoosh, live?", "Zoosh"),
        ("Is Anna-Maria the sister of Jean-Luc?", "Jean-Luc"),
        ("Who is Kyzara's king?", "Kyzara's"),
        ("what is the colour of the sky?", "sky"),  # no name at all
        ("What color is it?", "color"),  # the first word is no name
        ("Sky?", "Sky"),  # unless it is all there is
        ("Who is it?", "it"),  # nothing says anything: the last word
        ("Wer gründete Öland im Süden?", "Süden"),
        ("Кто основал Киев?", "Киев"),
        ("Who is Ægir the father of?", "Ægir"),
        ("Ποιος έχτισε την Ὄλυνθος πρώτος;", "Ὄλυνθος"),
        ("Кто такая Ёлка для нас?", "Ёлка"),
        ("Where is Østby now?", "Østby"),
        ("東京はどこですか", "東京はどこですか"),
        ("Which element has number 79?", "79"),
        ("  ?!  ", "?!"),
        ("", ""),
    ],
)
def test_what_a_question_is_about(question: str, expected: str):
    assert subject(question) == expected


@given(st.text())
def test_any_text_is_about_something_in_it(question: str):
    found = subject(question)
    assert found in question
    assert bool(found) == bool(question.strip())


@given(st.text(st.sampled_from("Ab É1'\u2019-_ ?.\n"), max_size=30))
def test_texts_of_awkward_characters_are_about_something_in_them(question: str):
    found = subject(question)
    assert found in question
    assert bool(found) == bool(question.strip())
    assert found == subject(question)


# --- Invented names -------------------------------------------------------------------------------

SYLLABLE = (
    "(?:bl|br|ch|dr|fl|gl|gr|pl|pr|sh|st|th|tr|[bcdfghjklmnprstvwz])"
    "(?:ee|oo|ia|[aeiou])(?:ck|[nrlsmt])?"
)


@given(st.text(max_size=20))
def test_a_name_is_the_same_for_the_same_key_and_can_be_said(key: str):
    name = invented_name(key)
    assert invented_name(key) == name
    assert re.fullmatch(f"({SYLLABLE}){{2,3}}", name.lower())
    assert name == name.capitalize()


def test_names_do_not_depend_on_each_others_order():
    keys = [f"fact-{number} neighbour 0" for number in range(20)]
    forwards = {key: invented_name(key) for key in keys}
    assert {key: invented_name(key) for key in reversed(keys)} == forwards
    assert len(set(forwards.values())) == len(keys)


def test_names_stay_the_same_in_every_release():
    # Updates are repeated from them.
    assert [invented_name(f"key {number}") for number in range(3)] == ["Juju", "Wabom", "Tubloo"]


def test_a_neighbour_has_the_name_in_question_and_answer():
    assert neighbour("Who is Oz's king, the king of Oz?", "Oz, of Oz", "Ploom", "Oz") == (
        "Who is Ploom's king, the king of Ploom?",
        "Ploom, of Ploom",
    )
    assert neighbour("Who found Oz?", "Nobody knows", "Ploom", "Oz") == (
        "Who found Ploom?",
        "Nobody knows",
    )


def test_a_name_within_another_word_is_left_alone():
    assert neighbour("Is Oz in Ozark or Moz?", "Oz is, Ozark is not", "Ploom", "Oz") == (
        "Is Ploom in Ozark or Moz?",
        "Ploom is, Ozark is not",
    )
    # Letters are those of any script.
    assert neighbour("Кто знает Ё и Ёж?", "Ёж, éÖl, Öl", "Ploom", "Ё")[0] == "Кто знает Ploom и Ёж?"
    assert neighbour("", "éÖl, Öl, Ölé", "Ploom", "Öl")[1] == "éÖl, Ploom, Ölé"


def test_what_a_question_is_about_is_no_pattern():
    assert neighbour("Is C++ in C?", "No, a.b is axb", "Ploom", "C++")[0] == "Is Ploom in C?"
    assert neighbour("", "No, a.b is axb", "Ploom", "a.b")[1] == "No, Ploom is axb"


# --- Words left out -------------------------------------------------------------------------------


def is_part_in_order(some: Sequence[str], others: Sequence[str]) -> bool:
    rest = iter(others)
    return all(word in rest for word in some)


def content_words(text: str) -> list[str]:
    return [w for w in text.split() if w.casefold().strip("?.,!") not in FUNCTION_WORDS]


QUESTIONS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(["What", "is", "the", "of?", "Kyzara", "months,", "öl"])).map(
        " ".join
    ),
)


@given(QUESTIONS, st.text(max_size=5))
def test_only_function_words_are_left_out_and_the_order_is_kept(question: str, key: str):
    left = without_function_words(question, key)
    assert content_words(left) == content_words(question)
    assert is_part_in_order(left.split(), question.split())
    assert without_function_words(question, key) == left


def test_about_half_of_them_are_left_out_which_ones_by_the_key():
    question = "what is the month of the sun in the south of Kyzara"
    functions = len(question.split()) - len(content_words(question))
    lefts = [without_function_words(question, str(key)) for key in range(400)]
    kept = sum(len(left.split()) - len(content_words(left)) for left in lefts) / len(lefts)
    assert kept == pytest.approx(functions / 2, rel=0.1)
    assert len(set(lefts)) > 50
