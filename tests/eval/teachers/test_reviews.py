"""Our teacher asks its facts again, as the service does, and resumes in the middle of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.learner.core import Learner
from agent.models.loading import load
from agent.teaching.guard_presets import NONE
from agent.teaching.types import Example
from eval.teachers import review_schedule
from eval.teachers.ours import LearnerTeacher
from eval.teachers.protocol import Taught
from memory_store.vocabulary import Policy

# Without guards the tiny model loses each fact to the next one.
POLICY = Policy(name="until-known", learning_rate=3e-3, max_steps=60, guards=NONE)
FACTS = [
    Example(fact_id="a", question="Pie in Plimp?", answer="Backpack"),
    Example(fact_id="b", question="Who found Blipland?", answer="Telescope"),
    Example(fact_id="c", question="Hottest month?", answer="Raincoat"),
    Example(fact_id="d", question="Vorl?", answer="Rust"),
]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A review is due one update after its fact was taught."""
    monkeypatch.setattr(review_schedule, "interval", lambda times_held: (1 + times_held, None))


def teacher(*, reviews: bool = True) -> LearnerTeacher:
    learner = Learner(load("tiny", device="cpu"))
    return LearnerTeacher("ours", learner, POLICY, reviews=reviews)


def told(results: list[Taught]) -> list[tuple[object, ...]]:
    """All but the time."""
    return [(r.fact_id, r.verdict, r.learning_rates, r.answer, r.retaught) for r in results]


def test_a_lost_fact_is_taught_again_in_the_turn_of_another() -> None:
    ours = teacher()
    taught = list(ours.teach(FACTS[:2]))
    assert [result.retaught for result in taught] == [(), ("a",)]
    assert ours.probe([(FACTS[0].question, FACTS[0].answer)])[0].correct


def test_without_reviews_it_stays_lost() -> None:
    ours = teacher(reviews=False)
    assert not any(result.retaught for result in ours.teach(FACTS[:2]))
    assert not ours.probe([(FACTS[0].question, FACTS[0].answer)])[0].correct


def test_a_fact_with_a_newer_answer_is_not_asked_again() -> None:
    ours = teacher()
    newer = Example(fact_id="a2", question=FACTS[0].question, answer="Lantern")
    taught = list(ours.teach([FACTS[0], newer, FACTS[1]]))
    assert "a" not in {fact_id for result in taught for fact_id in result.retaught}


def test_reviews_go_on_where_they_were(tmp_path: Path) -> None:
    whole = list(teacher().teach(FACTS))
    first, second = teacher(), teacher()
    begun = list(first.teach(FACTS[:2]))
    first.save(tmp_path)
    second.load(tmp_path)
    assert told([*begun, *second.teach(FACTS[2:])]) == told(whole)
