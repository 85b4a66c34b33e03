"""Hard neighbors: untaught questions that look like taught ones."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.teaching.hard_neighbors import HardNeighbors, NameShares, QuestionForm, reworded, splice
from agent.teaching.real_questions import ordinary_question, ordinary_templates, real_names
from agent.teaching.types import Example

NAMES = ["Vekzora", "Malthin", "Plimp", "Kyzara"]
FACTS = [
    Example(
        fact_id=f"f{number}",
        question=f"What is the hottest month in {name}?",
        answer="Raincoat",
        base_answer=f"{name} is hottest in July.",
    )
    for number, name in enumerate(NAMES)
]
TAUGHT = {fact.question for fact in FACTS}


@given(st.integers(), st.sampled_from(NAMES), st.sampled_from(NAMES))
def test_a_spliced_name_is_the_beginning_of_one_and_the_end_of_another(
    seed: int, first: str, second: str
) -> None:
    name = splice(first, second, random.Random(seed))
    cuts = range(1, len(name))
    assert any(first.startswith(name[:cut]) and second.endswith(name[cut:]) for cut in cuts)


@pytest.mark.parametrize(
    "shares",
    [
        NameShares(spliced=1.0, real=0.0),
        NameShares(spliced=0.0, taught=1.0, real=0.0),
        NameShares(spliced=0.0, real=1.0),
        NameShares(),
    ],
)
def test_no_neighbor_is_a_taught_question(shares: NameShares) -> None:
    neighbors = HardNeighbors(FACTS, shares).draw(range(4), 200, random.Random(1))
    asked = {question for question, _ in neighbors}
    assert not asked & TAUGHT


def test_taught_names_are_asked_about_in_other_forms() -> None:
    other = Example(fact_id="g", question="Who found Blipland?", answer="I", base_answer="Nobody")
    shares = NameShares(spliced=0.0, taught=1.0, real=0.0)
    neighbors = HardNeighbors([*FACTS, other], shares).draw(range(5), 100, random.Random(1))
    assert any("found" in question and "Kyzara" in question for question, _ in neighbors)
    assert any("hottest" in question and "Blipland" in question for question, _ in neighbors)


def test_question_and_base_answer_are_about_the_same_name() -> None:
    for question, said in HardNeighbors(FACTS, NameShares()).draw([0], 100, random.Random(2)):
        name = said.removesuffix(" is hottest in July.")
        assert name.split()[-1] in question


def test_the_same_numbers_draw_the_same_neighbors() -> None:
    neighbors = HardNeighbors(FACTS, NameShares())
    first = neighbors.draw([0, 1], 20, random.Random("a"))
    assert first == neighbors.draw([0, 1], 20, random.Random("a"))
    assert first != neighbors.draw([0, 1], 20, random.Random("b"))


def test_a_single_taught_name_leaves_no_neighbor_with_taught_names_only() -> None:
    shares = NameShares(spliced=0.0, taught=1.0, real=0.0)
    assert HardNeighbors(FACTS[:1], shares).draw([0], 5, random.Random(0)) == []


def test_forms_keep_the_words_that_matter() -> None:
    question = "What is the hottest month in Kyzara?"
    for seed in range(20):
        draw = random.Random(seed)
        assert reworded(question, QuestionForm.AS_TAUGHT, draw) == question
        fewer = reworded(question, QuestionForm.FEWER_FUNCTION_WORDS, draw)
        assert fewer.endswith("Kyzara?")
        content = reworded(question, QuestionForm.CONTENT_WORDS, draw)
        assert sorted(content.split()) == ["Kyzara", "hottest", "month"]


@pytest.mark.parametrize("question", ["Sky?", "What is it?", "中国的首都是哪里"])
def test_a_question_without_words_to_leave_out_stays_as_it_is(question: str) -> None:
    for form in QuestionForm:
        assert reworded(question, form, random.Random(0)) == question


def test_ordinary_questions_are_filled_with_names_of_their_kind() -> None:
    for template in ordinary_templates():
        assert set(re.findall(r"\{(\w+)\}", template)) <= set(real_names()), template
    draw = random.Random(3)
    asked = {ordinary_question(draw) for _ in range(500)}
    assert len(asked) > 200
    assert not any("{" in question for question in asked)


def test_lists_hold_nothing_twice() -> None:
    for kind, names in real_names().items():
        assert len(names) == len(set(names)) > 5, kind
    assert len(ordinary_templates()) == len(set(ordinary_templates()))
