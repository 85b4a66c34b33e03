"""Whatever a fact holds, the terminal gets one line of exactly the width that was asked for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from agent.monitor.text import MARKS, clean, fit, wrap

# All that terminals are attacked and confused with is drawn often.
ODD = st.text(
    st.sampled_from("ab \x1b\x07\r\n\t\x9b\u202e\u200d\ufe0f\u0301宽🙂\ud800[]\\/{}")
    | st.characters(),
    max_size=60,
)


@settings(deadline=None)
@given(ODD)
def test_clean_text_is_printable_and_stays_so(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("\u202edrawkcab", "\\u202edrawkcab"),
        ("a\u200db", "a\\u200db"),
        ("[red]markup[/red]", "[red]markup[/red]"),
        ("é 宽 🙂", "é 宽 🙂"),
        ("\u0301a" + "\u0301" * 9, "a" + "\u0301" * MARKS),
        ("❤\ufe0f", "❤"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert clean(text) == shown


@settings(deadline=None)
@given(ODD, st.integers(0, 40))
def test_fit_has_exactly_the_width(text: str, width: int) -> None:
    assert cell_len(fit(text, width)) == width
    assert cell_len(fit(text, width, "...")) == width


@settings(deadline=None)
@given(ODD, st.integers(2, 40), st.integers(1, 4))
def test_wrapped_lines_have_exactly_the_width(text: str, width: int, lines: int) -> None:
    found = wrap(text, width, lines)
    assert 1 <= len(found) <= lines
    assert {cell_len(line) for line in found} == {width}


def test_wrap_breaks_between_words_and_tells_what_is_missing() -> None:
    assert wrap("one two three", 8, 2) == ["one two ", "three   "]
    assert wrap("one two three four five", 8, 2) == ["one two ", "three f…"]
    assert wrap("abcdefghij kl", 4, 9) == ["abcd", "efgh", "ij  ", "kl  "]
    assert wrap("宽宽宽", 4, 1) == ["宽… "]
    assert fit("abcdef", 4) == "abc…"
