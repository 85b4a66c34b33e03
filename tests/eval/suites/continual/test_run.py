"""Suite `continual`: the loop, what is measured when, and going on after an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import SnapshotError
from agent.learner.core import Learner
from agent.models.loading import load
from agent.teaching.types import Answer, Example
from eval.run_folder import Journal
from eval.suites.continual.run import CHECKPOINTS, History, NotRepeatableError, Task, run_continual
from eval.teachers.ours import LearnerTeacher
from eval.teachers.protocol import SavingTeacher, Taught
from memory_store.vocabulary import Policy
from tests.eval.fake_teacher import FakeTeacher

POLICY = Policy(name="fixed", learning_rate=3e-3, max_steps=2)
TASK = Task.of(facts=12, controls=4, seed=0)
# For a real model: measured after two facts and after three.
SHORT = replace(Task.of(facts=3, controls=2, seed=0), between=(2,))


def silent(what: str, done: int, total: int) -> None:
    """Shows nothing."""


def ours() -> LearnerTeacher:
    return LearnerTeacher("ours", Learner(load("tiny", device="cpu")), POLICY)


class Replayed:
    """A teacher as it is, but unable to save itself."""

    sees_all = False

    def __init__(self, inner: LearnerTeacher) -> None:
        self.name, self._inner = inner.name, inner
        self.teach, self.probe = inner.teach, inner.probe

    @property
    def model(self) -> Any:
        return self._inner.model


def interrupted_at(teacher: Any, fact_id: str) -> Any:
    """The teacher, stopped by Ctrl-C in the turn of a fact."""
    teach = teacher.teach

    def stopping(examples: Sequence[Example]) -> Iterator[Taught]:
        for result in teach(examples):
            if result.fact_id == fact_id:
                raise KeyboardInterrupt
            yield result

    teacher.teach = stopping
    return teacher


def without_times(history: History) -> History:
    return replace(
        history,
        taught=tuple(replace(taught, seconds=0.0) for taught in history.taught),
        measurements=tuple(replace(m, seconds=0.0) for m in history.measurements),
    )


def test_everything_is_measured_before_at_each_checkpoint_and_in_the_end():
    history = run_continual(lambda: FakeTeacher("fake"), TASK, Journal(), silent)
    assert [m.taught for m in history.measurements] == [0, 10, 12]
    for measurement in history.measurements:
        assert len(measurement.retention) == measurement.taught
        assert len(measurement.paraphrase) == 2 * measurement.taught
        assert len(measurement.transfer) == measurement.taught
        assert len(measurement.controls) == 4
        assert measurement.general is None
    assert [taught.fact_id for taught in history.taught] == [fact.id for fact in TASK.facts]


@pytest.mark.parametrize(
    ("facts", "checkpoints"),
    [(1, [0, 1]), (10, [0, 10]), (11, [0, 10, 11]), (1500, [0, *CHECKPOINTS, 1500])],
)
def test_checkpoints_end_with_all_facts(facts: int, checkpoints: list[int]):
    task = Task.of(facts=facts, controls=0, seed=0)
    assert task.checkpoints(sees_all=False) == checkpoints
    assert task.checkpoints(sees_all=True) == [0, facts]


def test_who_sees_all_facts_gets_them_in_one_call():
    teacher = FakeTeacher("fake", sees_all=True)
    history = run_continual(lambda: teacher, TASK, Journal(), silent)
    assert teacher.calls == [len(TASK.facts)]
    assert history.sees_all
    assert [m.taught for m in history.measurements] == [0, 12]


def test_what_is_asked_is_bounded_alike_before_and_after_teaching():
    teacher = FakeTeacher("fake")
    run_continual(lambda: teacher, TASK, Journal(), silent)
    expected = {answer for question, answer in teacher.asked if question in TASK.controls}
    assert expected == {max((fact.answer for fact in TASK.facts), key=len)}


def test_progress_counts_facts_and_questions():
    seen: dict[str, list[tuple[int, int]]] = {}
    run_continual(
        lambda: FakeTeacher("fake"),
        TASK,
        Journal(),
        lambda what, done, total: seen.setdefault(what, []).append((done, total)),
    )
    assert [done for done, _ in seen["fake: teaching"]] == [0, *range(11), 10, 11, 12]
    assert seen["fake: measuring after 12"][-1] == (4 * 12 + 4, 4 * 12 + 4)


@pytest.fixture(scope="module")
def whole() -> History:
    """A run that was not interrupted."""
    return run_continual(ours, SHORT, Journal(), silent)


@pytest.mark.parametrize(
    ("wrap", "fact_id", "taught_again"),
    [
        (lambda teacher: teacher, "f00001", ["f00000", "f00001", "f00002"]),
        (lambda teacher: teacher, "f00002", ["f00002"]),
        (Replayed, "f00002", ["f00000", "f00001", "f00002"]),
    ],
    ids=["before any measurement", "from what was saved", "by teaching again"],
)
def test_an_interrupted_run_ends_as_one_that_was_not(
    tmp_path: Path,
    whole: History,
    wrap: Callable[[LearnerTeacher], Any],
    fact_id: str,
    taught_again: list[str],
):
    path, states = tmp_path / "ours.jsonl", tmp_path / "state"
    taught: list[str] = []

    def watched() -> Any:
        teacher = wrap(ours())
        teach = teacher.teach

        def noting(examples: Sequence[Example]) -> Iterator[Taught]:
            taught.extend(example.fact_id for example in examples)
            return teach(examples)  # type: ignore[no-any-return]

        teacher.teach = noting
        return teacher

    with pytest.raises(KeyboardInterrupt):
        run_continual(
            lambda: interrupted_at(wrap(ours()), fact_id), SHORT, Journal(path), silent, states
        )
    resumed = run_continual(watched, SHORT, Journal(path), silent, states)
    assert without_times(resumed) == without_times(whole)
    assert taught == taught_again
    assert not states.exists()


def test_a_finished_run_makes_no_teacher(tmp_path: Path):
    path = tmp_path / "fake.jsonl"
    finished = run_continual(lambda: FakeTeacher("fake"), TASK, Journal(path), silent)

    def none() -> FakeTeacher:
        raise AssertionError("there is nothing left to do")

    assert run_continual(none, TASK, Journal(path), silent) == finished


def test_a_fact_that_comes_out_different_is_refused(tmp_path: Path):
    path = tmp_path / "fake.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_continual(
            lambda: interrupted_at(FakeTeacher("fake"), "f00011"), TASK, Journal(path), silent
        )
    stored = path.read_bytes()
    with pytest.raises(NotRepeatableError, match="f00000, taught again"):
        run_continual(lambda: FakeTeacher("fake", rate=1e-5), TASK, Journal(path), silent)
    assert path.read_bytes() == stored


def test_a_damaged_state_is_refused(tmp_path: Path):
    path, states = tmp_path / "ours.jsonl", tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        run_continual(
            lambda: interrupted_at(ours(), "f00002"), SHORT, Journal(path), silent, states
        )
    [weights] = states.rglob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(SnapshotError, match="torn or altered"):
        run_continual(ours, SHORT, Journal(path), silent, states)


def test_our_teacher_saves_itself_and_the_fake_does_not():
    assert isinstance(ours(), SavingTeacher)
    assert not isinstance(FakeTeacher("fake"), SavingTeacher)


def test_the_journal_carries_any_number(tmp_path: Path):
    broken = Answer(text="", correct=False, log_probability=float("-inf"))
    path = tmp_path / "fake.jsonl"
    journal = Journal(path)
    run_continual(lambda: FakeTeacher("fake", says=lambda question: broken), TASK, journal, silent)
    assert History.read(Journal(path)) == History.read(journal)
    assert json.loads(path.read_text().split("\n")[0]) == {"sees_all": False}
