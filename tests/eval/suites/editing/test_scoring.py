"""Scores of given texts, on a model whose probabilities are known."""

from __future__ import annotations

import math

import pytest

from eval.suites.editing.scoring import Forced, force_answers, score_completions
from tests.eval.fakes import LIKELY, UNLIKELY, FakeTeacher, asked

KNOWN = {"Rome is in": " Italy", **asked({"Where is Rome?": "Italy"})}
TEACHER = FakeTeacher(KNOWN, KNOWN)


def test_a_completion_has_the_probability_of_exactly_its_tokens():
    right, other = score_completions(TEACHER, [("Rome is in", "Italy"), ("Rome is in ", "Iran")])

    assert right.log_probability == pytest.approx(6 * math.log(LIKELY), abs=1e-4)
    assert (right.tokens, right.greedy) == (6, True)
    assert right.per_token == pytest.approx(math.log(LIKELY), abs=1e-5)
    # " I" is as expected; "r" is not, and after it all is lost.
    expected = 2 * math.log(LIKELY) + 3 * math.log(UNLIKELY)
    assert other.log_probability == pytest.approx(expected, abs=1e-3)
    assert (other.tokens, other.greedy) == (5, False)


def test_forced_choices_follow_the_right_tokens_and_leave_the_terminator_out():
    right, other = force_answers(
        TEACHER, [("Where is Rome?", "Italy"), ("Where is Rome?", "It must be")]
    )
    assert right == Forced(tuple(b" Italy"), tuple(b" Italy"))
    assert right.accuracy == 1.0
    assert other == Forced(tuple(b" Ita~~~~~~~"), tuple(b" It must be"))
    assert other.accuracy == pytest.approx(3 / 11)


def test_agreement_is_with_the_other_models_choices_not_with_the_right_ones():
    assert Forced((1, 2, 3, 4), (9, 9, 9, 9)).agreement(Forced((1, 2, 0, 4), (9,) * 4)) == 0.75


def test_many_texts_are_scored_in_parts_and_in_order():
    pairs = [("Rome is in", "Italy"), ("Rome is in", "Iran")] * 40
    scored = score_completions(TEACHER, pairs)
    assert [completion.greedy for completion in scored] == [True, False] * 40
    assert len(force_answers(TEACHER, pairs)) == 80
    assert score_completions(TEACHER, []) == []
    assert force_answers(TEACHER, []) == []
