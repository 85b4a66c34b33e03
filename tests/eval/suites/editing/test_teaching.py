"""What the editing suites share: shares, what teaching took, tables."""

from __future__ import annotations

import pytest

from agent.teaching.types import Example
from eval.metrics import Count, wilson_interval
from eval.reports.markdown import table_text
from eval.reports.tables import Table
from eval.suites.editing.teaching import Teaching, share_json, share_text, teach_all
from tests.eval.fakes import FakeTeacher, asked

EXAMPLES = [
    Example(fact_id="1", question="Who?", answer="Ann"),
    Example(fact_id="2", question="Where?", answer="Rome"),
]


def test_a_share_of_counts_has_wilsons_interval():
    share = Count.of([True, False, True, True])
    assert (share.count, share.total, share.rate) == (3, 4, 0.75)
    assert share.interval == wilson_interval(3, 4)
    assert share_text(share) == "75.0 (30.1 to 95.4)"
    assert share_json(share) == {
        "right": 3,
        "total": 4,
        "rate": 0.75,
        "interval_95": list(wilson_interval(3, 4)),
    }


def test_a_share_of_shares_is_their_mean():
    share = Count.of([0.5, 0.25])
    assert share.rate == pytest.approx(0.375)
    assert share.interval[0] < 0.375 < share.interval[1]


def test_a_share_of_nothing_is_no_number():
    nothing = Count.of([])
    assert nothing.rate is None
    assert share_text(nothing) == "-"
    assert share_json(nothing)["rate"] is None


def test_edits_are_taught_in_order_and_what_they_took_is_told():
    teacher = FakeTeacher({}, asked({"Who?": "Ann", "Where?": "Paris"}))
    seen: list[tuple[int, int]] = []

    teaching = teach_all(teacher, EXAMPLES, lambda done, total: seen.append((done, total)))

    assert teacher.taught == [("1", "Who?", "Ann"), ("2", "Where?", "Rome")]
    assert seen == [(1, 2), (2, 2)]
    assert teaching == Teaching(
        at_once=Count(1, 2), verdicts={"known": 1, "learned": 1}, steps=1.0, seconds=0.5
    )
    assert teaching.as_json() == {
        "right_after_its_turn": share_json(Count(1, 2)),
        "verdicts": {"known": 1, "learned": 1},
        "steps_per_fact": 1.0,
        "seconds_per_fact": 0.5,
    }


def test_a_table():
    assert (
        table_text(Table("", ("a", "b"), (("1", "2"),))) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    )
