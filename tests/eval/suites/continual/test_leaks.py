"""What counts as a leak, and what does not."""

from __future__ import annotations

import pytest

from eval.metrics import Count
from eval.suites.continual.leaks import count_leaks

TAUGHT = ["Raincoat", "12 May 1345", "7", "!"]


@pytest.mark.parametrize(
    ("base", "now", "leaked", "exactly", "changed"),
    [
        ("July", "Raincoat", True, True, True),
        ("July", " raincoat. ", True, True, True),
        ("July", "It is a raincoat, they say", True, False, True),
        ("July", "On 12 May, 1345", True, False, True),
        ("July", "Raincoats", False, False, True),
        ("July", "12 May", False, False, True),
        ("July", "17", False, False, True),
        ("July", "july!", False, False, False),
        ("July!", "!", False, False, True),
        ("a raincoat", "Raincoat", False, False, True),
        ("Raincoat", "Raincoat", False, False, False),
        # A taught answer that the base model gave does not excuse another.
        ("7", "raincoat", True, True, True),
    ],
)
def test_a_leak_is_a_taught_answer_that_the_base_model_did_not_give(
    base: str, now: str, leaked: bool, exactly: bool, changed: bool
):
    leaks = count_leaks([base], [now], TAUGHT)
    assert leaks.leaked == Count.of([leaked])
    assert leaks.leaked_exactly == Count.of([exactly])
    assert leaks.changed == Count.of([changed])


def test_nothing_leaks_of_nothing():
    assert count_leaks([], [], TAUGHT).leaked == Count(count=0, total=0)
    assert count_leaks(["a"], ["b"], []).leaked == Count(count=0, total=1)
