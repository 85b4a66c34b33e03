"""Suite `zsre` on a teacher whose answers are known, and on a real one."""

from __future__ import annotations

import json

import pytest

from agent.models.loading import load
from eval.metrics import Count
from eval.suites.editing.edit_files import ZsreRow
from eval.suites.editing.zsre import ZsreReport, run_zsre, zsre_table
from eval.teachers.until_known import UntilKnown
from tests.eval.fakes import FakeTeacher, asked

ROWS = [
    ZsreRow(
        id=str(number),
        question=f"Who made {thing}?",
        target=maker,
        rephrase=f"{thing}: made by whom?",
        locality_question=f"what is {thing} for",
        locality_answer="nothing",
    )
    for number, (thing, maker) in enumerate([("Ark", "Noah"), ("Oz", "Baum")], 1)
]
BEFORE = asked({"what is Ark for": "sailing", "what is Oz for": "nothing"})
AFTER = asked(
    {
        "Who made Ark?": "Noah",
        "Who made Oz?": "Bach",
        "Ark: made by whom?": "Noah",
        "what is Ark for": "sailing",
        "what is Oz for": "nobody",
    }
)


def report() -> ZsreReport:
    return run_zsre(FakeTeacher(BEFORE, AFTER), ROWS, lambda done, total: None)


def test_reliability_and_generalization_are_forced_and_generated():
    after = report().after
    # " Ba" of " Baum" is right.
    assert after.reliability.forced.count == pytest.approx(1 + 3 / 5)
    assert after.reliability.generated == Count(1, 2)
    assert after.generalization.forced == Count(1, 2)
    assert after.generalization.generated == Count(1, 2)


def test_locality_is_being_as_before_right_or_wrong():
    after = report().after
    # " nothing" and " nobody": the same choices along " no", then "b" for "t", then "~" for the
    # rest of "nothing", of which none was chosen before.
    assert after.locality.generated == Count(1, 2)
    assert after.locality.forced.count == pytest.approx(1 + 3 / 8)


def test_before_teaching_nothing_is_right_and_all_is_as_it_was():
    before = report().before
    assert before.reliability.generated == Count(0, 2)
    assert before.locality.generated == before.locality.forced == Count(2, 2)


def test_the_report_tells_the_teacher_and_its_cost():
    made = report()
    written = json.loads(json.dumps(made.as_json(), allow_nan=False))
    assert list(written) == ["suite", "teacher", "facts", "teaching", "before", "after"]
    assert (written["suite"], written["teacher"], written["facts"]) == ("zsre", "fake", 2)
    assert written["teaching"]["right_after_its_turn"]["right"] == 1
    assert written["after"]["locality"]["generated"]["rate"] == 0.5


def test_the_table_has_a_row_for_each_teacher():
    heading, _, *rows = zsre_table([report(), report()]).splitlines()
    assert heading.startswith("| teacher | facts | reliability, generated | forced |")
    assert len(rows) == 2
    assert rows[0].startswith("| fake | 2 | 50.0 (9.5 to 90.5) | 80.0 (")
    assert rows[0].count("|") == heading.count("|")


def test_no_rows_give_valid_json():
    made = run_zsre(FakeTeacher({}, {}), [], lambda done, total: None)
    json.dumps(made.as_json(), allow_nan=False)


def test_a_taught_model_is_reliable():
    teacher = UntilKnown(load("tiny", device="cpu"), learning_rate=1e-3, max_steps=60)
    after = run_zsre(teacher, ROWS[:1], lambda done, total: None).after
    assert after.reliability.forced == after.reliability.generated == Count(1, 1)
