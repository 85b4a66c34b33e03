"""Suite `counterfact` on a teacher whose preferences are known, and on a real one."""

from __future__ import annotations

import json
import math

import pytest

from agent.models.loading import load
from eval.metrics import Count
from eval.suites.editing.counterfact import (
    CounterFactReport,
    Preferences,
    Success,
    counterfact_table,
    run_counterfact,
)
from eval.suites.editing.edit_files import CounterFactRow
from eval.teachers.until_known import UntilKnown
from tests.eval.fakes import LIKELY, UNLIKELY, FakeTeacher, asked

ROWS = [
    CounterFactRow(
        id="0",
        question="What does Ann speak?",
        prompt="Ann speaks",
        target_new="Thai",
        target_true="Urdu",
        paraphrases=("Ann reads",),
        neighbors=("Bob speaks", "Cid speaks"),
    ),
    CounterFactRow(
        id="1",
        question="What does Eve speak?",
        prompt="Eve speaks",
        target_new="Lao",
        target_true="Urdu",
        paraphrases=("Eve reads",),
        neighbors=("Dan speaks", "Fay speaks"),
    ),
]
TRUE = {f"{name} speaks": " Urdu" for name in ("Ann", "Eve", "Bob", "Cid", "Dan", "Fay")}
BEFORE = {**TRUE, "Ann reads": " Urdu", "Eve reads": " Urdu"}
AFTER = {
    **BEFORE,
    **asked({"What does Ann speak?": "Thai"}),
    "Ann speaks": " Thai",
    "Eve speaks": " Lao",
    "Ann reads": " Thai",
    "Cid speaks": " Thai",
}


def report() -> CounterFactReport:
    return run_counterfact(FakeTeacher(BEFORE, AFTER), ROWS, lambda done, total: None)


def test_successes_are_means_over_rows_with_their_prompts():
    by = report().after.preferences["whole_target"]
    assert (by.efficacy.share, by.efficacy.prompts) == (Count(2, 2), 2)
    assert (by.paraphrase.share, by.paraphrase.prompts) == (Count(1, 2), 2)
    assert (by.neighborhood.share, by.neighborhood.prompts) == (Count(1.5, 2), 4)
    assert by.score == pytest.approx(3 / (1 / 1 + 1 / 0.5 + 1 / 0.75))


def test_before_teaching_the_true_targets_are_preferred():
    by = report().before.preferences["whole_target"]
    assert by.efficacy.share == by.paraphrase.share == Count(0, 2)
    assert by.neighborhood.share == Count(2, 2)
    assert by.score == 0.0


def test_magnitudes_are_mean_differences_of_probabilities():
    preferences = report().after.preferences
    # The right target has five likely bytes, or four; the wrong one's first, a space, is likely.
    assert preferences["whole_target"].efficacy.magnitude == pytest.approx(
        (LIKELY**5 + LIKELY**4) / 2, abs=1e-4
    )
    wrong = (LIKELY * UNLIKELY**4) ** (1 / 5)
    assert preferences["per_token"].efficacy.magnitude == pytest.approx(LIKELY - wrong, abs=1e-4)
    # One row's pairs cancel each other.
    assert preferences["whole_target"].paraphrase.magnitude == pytest.approx(0, abs=1e-3)


def test_a_long_target_is_favored_per_token_alone():
    row = CounterFactRow(
        id="2",
        question="?",
        prompt="He is",
        target_new="Bolivian",
        target_true="A",
        paraphrases=("He is",),
        neighbors=("He is",),
    )
    # Both begin as the model would not; the space is likely, and the longer one has a likely end.
    known = {"He is": " ~", "He is B": "olivian"}
    scores = run_counterfact(FakeTeacher(known, known), [row], lambda done, total: None).after
    assert scores.preferences["per_token"].efficacy.share == Count(1, 1)
    assert scores.preferences["whole_target"].efficacy.share == Count(0, 1)


def test_generation_is_told_beside():
    after = report().after
    assert after.answered == Count(1, 2)
    assert after.completed == Count(2, 2)


def test_the_question_is_taught_and_the_report_tells_it():
    teacher = FakeTeacher(BEFORE, AFTER)
    made = run_counterfact(teacher, ROWS, lambda done, total: None)
    assert teacher.taught[1] == ("1", "What does Eve speak?", "Lao")

    written = json.loads(json.dumps(made.as_json(), allow_nan=False))
    assert list(written) == ["suite", "teacher", "facts", "teaching", "before", "after"]
    assert list(written["after"]) == ["whole_target", "per_token", "generated"]
    assert written["after"]["whole_target"]["NS"]["prompts"] == 4
    assert written["after"]["whole_target"]["S"] == pytest.approx(9 / 13)


def test_the_table_has_a_row_for_each_teacher():
    heading, _, *rows = counterfact_table([report(), report()], "per_token").splitlines()
    assert heading.startswith("| teacher | facts | ES | ES magnitude | PS |")
    assert len(rows) == 2
    assert rows[0].startswith("| fake | 2 | 100.0 (34.2 to 100.0) |")
    assert rows[0].count("|") == heading.count("|")


def test_the_score_of_nothing_is_no_number():
    nothing = Success(Count(0, 0), 0, math.nan)
    preferences = Preferences(efficacy=nothing, paraphrase=nothing, neighborhood=nothing)
    assert math.isnan(preferences.score)
    assert preferences.as_json()["S"] is None


def test_a_taught_model_answers_the_question():
    teacher = UntilKnown(load("tiny", device="cpu"), learning_rate=1e-3, max_steps=60)
    made = run_counterfact(teacher, ROWS[:1], lambda done, total: None)
    assert (made.before.answered, made.after.answered) == (Count(0, 1), Count(1, 1))
