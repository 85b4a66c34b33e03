"""`retrieval`: what it finds, what it shows, and that the model stays as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from agent.models.loading import LoadedModel
from agent.teaching.types import Example
from eval.suites.editing.scoring import score_completions
from eval.teachers.retrieval import FactIndex, Retrieval
from tests.eval.teachers.conftest import FACTS, differing


@pytest.fixture
def index() -> FactIndex:
    made = FactIndex()
    for fact in FACTS:
        made.add(fact)
    return made


@pytest.mark.parametrize("fact", FACTS)
def test_a_stored_question_finds_itself(index: FactIndex, fact: Example):
    assert index.nearest(fact.question) == fact
    assert index.nearest(f"  {fact.question.upper()} ") == fact


def test_rare_words_count_more_than_common_ones(index: FactIndex):
    for town in ("Ar", "Bel", "Cor", "Dun", "Esk", "Fal", "Gam", "Hod", "Ild", "Jor"):
        question = f"What is the color of {town}?"
        index.add(Example(fact_id=town, question=question, answer="Red"))
    assert index.nearest("What is the color of Blipland?") == FACTS[1]


def test_nothing_is_found_without_a_shared_word(index: FactIndex):
    assert index.nearest("Hello?") is None
    assert index.nearest("") is None
    assert FactIndex().nearest("Who found Blipland?") is None


def test_a_new_answer_replaces_the_old_one(index: FactIndex):
    newer = Example(fact_id="d", question="who found  Blipland?", answer="Ann")
    index.add(newer)
    assert index.nearest("Who found Blipland?") == newer


def test_the_nearest_fact_is_shown_before_the_question_and_before_a_text(loaded: LoadedModel):
    teacher = Retrieval(loaded)
    assert teacher.encoder.decode(teacher.encoder.prompt("Blipland?")) == "Q: Blipland?\nA:"
    list(teacher.teach(FACTS))

    shown = "Q: Who found Blipland?\nA: Zed\n"
    asked = teacher.encoder.prompt("Blipland's founder is who?")
    assert teacher.encoder.decode(asked) == f"{shown}Q: Blipland's founder is who?\nA:"
    assert teacher.encoder.decode(teacher.encoder.opening("Blipland was")) == f"{shown}Blipland was"
    assert teacher.encoder.decode(teacher.encoder.opening("Nothing")) == "Nothing"


def test_answers_change_and_weights_do_not(
    loaded: LoadedModel, weights_now: Callable[[], dict[str, Tensor]]
):
    teacher, before = Retrieval(loaded), weights_now()
    pairs = [("Who found Blipland?", "Zed")]
    untaught = teacher.probe(pairs)[0], score_completions(teacher, [("Blipland", "Zed")])[0]

    results = list(teacher.teach(FACTS))

    taught = teacher.probe(pairs)[0], score_completions(teacher, [("Blipland", "Zed")])[0]
    assert untaught[0].log_probability != taught[0].log_probability
    assert untaught[1].log_probability != taught[1].log_probability
    assert [result.verdict for result in results] == ["learned"] * 3
    assert all(result.learning_rates == () for result in results)
    assert results[1].answer.log_probability != untaught[0].log_probability
    assert teacher.model is loaded.model
    assert not differing(before, weights_now())
