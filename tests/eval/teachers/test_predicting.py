"""Our teacher under the policy `predicted`: it learns from its own facts, and resumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import SnapshotError
from agent.learner.core import Learner
from agent.models.loading import load
from agent.teaching.guard_presets import NONE
from agent.teaching.rate_prediction import MIN_ROWS
from agent.teaching.rates import PREDICTED
from agent.teaching.types import Answer, Example, Outcome
from eval.teachers import ours
from eval.teachers.ours import EXPERIENCE, REFIT_FACTS, Experience, LearnerTeacher
from eval.teachers.protocol import Taught
from memory_store.vocabulary import Policy, Step, Verdict

POLICY = Policy(name=PREDICTED, learning_rate=3e-3, max_steps=60, guards=NONE)
FACTS = [
    Example(fact_id="a", question="Pie in Plimp?", answer="Backpack"),
    Example(fact_id="b", question="Who found Blipland?", answer="Telescope"),
    Example(fact_id="c", question="Hottest month?", answer="Raincoat"),
    Example(fact_id="d", question="Vorl?", answer="Rust"),
    Example(fact_id="e", question="Zed?", answer="Lamp"),
]
ANSWER = Answer(text="", correct=True, log_probability=0.0)
STEP = Step(
    learning_rate=1e-4,
    loss=2.0,
    probability=0.5,
    gradient_norm=1.0,
    answer_tokens=3,
    candidates=16,
)


def outcome(steps: int, verdict: str = "learned") -> Outcome:
    return Outcome(
        verdict=Verdict(verdict),
        steps=(STEP,) * steps,
        before=ANSWER,
        after=ANSWER,
        transfer=(),
        forgetting=(),
        digest_before="",
        digest_after="",
        algorithm="",
    )


def teacher() -> LearnerTeacher:
    return LearnerTeacher("ours", Learner(load("tiny", device="cpu")), POLICY)


def told(taught: Taught) -> tuple[object, ...]:
    """All but the time."""
    return (taught.verdict, taught.learning_rates, taught.candidates, taught.answer)


def test_it_is_fitted_after_so_many_facts_and_not_between() -> None:
    experience = Experience()
    for _ in range(REFIT_FACTS - 1):
        experience.add(outcome(2))
    assert experience.predictor is None
    experience.add(outcome(2))
    fitted = experience.predictor
    assert fitted is not None
    for _ in range(REFIT_FACTS - 1):
        experience.add(outcome(2))
    assert experience.predictor == fitted
    experience.add(outcome(2))
    assert experience.predictor not in (None, fitted)  # more rows


def test_only_what_was_learned_counts_as_in_the_ledger() -> None:
    experience = Experience()
    for _ in range(REFIT_FACTS):
        experience.add(outcome(MIN_ROWS, "resisted"))
    assert (experience.taught, experience.updates, experience.predictor) == (REFIT_FACTS, [], None)


def test_it_is_kept_to_the_last_bit(tmp_path: Path) -> None:
    experience = Experience()
    for _ in range(REFIT_FACTS + 1):
        experience.add(outcome(2))
    experience.save(tmp_path / "e.json")
    assert Experience.load(tmp_path / "e.json") == experience


def test_fewer_candidates_once_fitted_also_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "REFIT_FACTS", 1)
    first = teacher()
    before = list(first.teach(FACTS[:3]))
    assert before[0].candidates == 16 * len(before[0].learning_rates)
    assert sum(len(taught.learning_rates) for taught in before) >= MIN_ROWS
    first.save(tmp_path)
    second = teacher()
    second.load(tmp_path)
    onward, resumed = list(first.teach(FACTS[3:])), list(second.teach(FACTS[3:]))
    assert list(map(told, resumed)) == list(map(told, onward))
    assert all(taught.candidates < 16 * len(taught.learning_rates) for taught in onward)


def test_without_its_experience_it_does_not_go_on(tmp_path: Path) -> None:
    first = teacher()
    first.save(tmp_path)
    (tmp_path / EXPERIENCE).unlink()
    with pytest.raises(SnapshotError, match="cannot be read"):
        teacher().load(tmp_path)
