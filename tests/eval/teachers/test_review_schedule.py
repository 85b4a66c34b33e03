"""When facts are asked again, counted in updates."""

from __future__ import annotations

import json

from eval.teachers.review_schedule import ReviewSchedule
from memory_store.schedule import interval

FIRST, SECOND = interval(0)[0], interval(1)[0]


def test_a_fact_is_due_after_the_first_interval_and_not_before() -> None:
    schedule = ReviewSchedule()
    schedule.begin("a", 3)
    assert schedule.take(3 + FIRST - 1) is None
    assert schedule.take(3 + FIRST) == ("a", 0)
    assert schedule.take(3 + FIRST) is None


def test_what_was_held_comes_after_twice_the_interval() -> None:
    schedule = ReviewSchedule()
    schedule.held("a", 10, 0)
    assert schedule.take(10 + SECOND - 1) is None
    assert schedule.take(10 + SECOND) == ("a", 1)


def test_the_longest_due_comes_first_then_the_one_added_first() -> None:
    schedule = ReviewSchedule()
    for fact_id, updates in (("late", 5), ("b", 2), ("a", 2)):
        schedule.begin(fact_id, updates)
    taken = [schedule.take(100) for _ in range(3)]
    assert [fact_id for fact_id, _ in taken if taken] == ["b", "a", "late"]  # type: ignore[misc]


def test_a_schedule_is_the_same_after_json() -> None:
    schedule = ReviewSchedule()
    for fact_id in "ba":
        schedule.begin(fact_id, 1)
    again = ReviewSchedule(json.loads(json.dumps(schedule.as_json())))
    for one in (schedule, again):
        one.begin("c", 1)
    assert [again.take(99) for _ in range(4)] == [schedule.take(99) for _ in range(4)]
