"""Bytes become keys, in whatever pieces they come; and what each key does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.monitor.keys import (
    BACKSPACE,
    DOWN,
    END,
    ENTER,
    ESCAPE,
    HOME,
    PAGE_DOWN,
    PAGE_UP,
    UP,
    KeyDecoder,
)
from agent.monitor.state import State
from agent.monitor.ui import Page, Pause, Request, ShowFact, Ui, press, shown_facts
from tests.monitor.session import eventful, folded, gone


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1bOB", [UP, DOWN]),
        (b"\x1b[5~\x1b[6~\x1b[1~\x1b[4~\x1b[H\x1b[F", [PAGE_UP, PAGE_DOWN, HOME, END, HOME, END]),
        (b"\x1b[1;5A", [UP]),  # with Ctrl
        (b"\r\n\x7f\x08", [ENTER, ENTER, BACKSPACE, BACKSPACE]),
        ("é宽".encode(), ["é", "宽"]),
        (b"\x1bq", [ESCAPE, "q"]),
        (b"\x1b[15~x", ["x"]),  # F5 is not used
        (b"\x00\x01\t", []),
        (b"\xff", ["\ufffd"]),
    ],
)
def test_keys_of_bytes(typed: bytes, keys: list[str]) -> None:
    assert KeyDecoder().keys(typed, last=True) == keys
    decoder, found = KeyDecoder(), []
    for place in range(len(typed)):
        found += decoder.keys(typed[place : place + 1])
    assert found + decoder.keys(b"", last=True) == keys


def test_an_escape_alone_is_told_only_when_nothing_follows() -> None:
    decoder = KeyDecoder()
    assert decoder.keys(b"\x1b") == []
    assert decoder.unfinished
    assert decoder.keys(b"", last=True) == [ESCAPE]
    assert not decoder.unfinished


@given(st.lists(st.binary(max_size=8)))
def test_no_bytes_break_it(pieces: list[bytes]) -> None:
    decoder = KeyDecoder()
    for piece in pieces:
        decoder.keys(piece)
    decoder.keys(b"", last=True)
    assert not decoder.unfinished


def pressed(*keys: str, state: State | None = None) -> tuple[Ui, list[Request]]:
    ui, requests = Ui(), []
    state = folded(eventful()) if state is None else state
    for key in keys:
        ui, request = press(ui, key, state)
        requests += [request] if request else []
    return ui, requests


def test_q_quits_but_not_in_the_filter() -> None:
    assert pressed("q")[0].quit
    ui, _ = pressed("/", "q")
    assert (ui.quit, ui.filter, ui.typing) == (False, "q", True)


def test_p_pauses_and_goes_on_by_what_the_service_told() -> None:
    assert pressed("p")[1] == [Pause(True)]
    lost = folded([*eventful(), gone()])
    ui, requests = pressed("p", state=lost)
    assert (requests, ui.notice) == ([], "no server: nothing to pause")
    assert pressed("p", "x")[0].notice == ""  # until the next key


def test_a_fact_is_picked_and_its_history_asked_for() -> None:
    ui, requests = pressed("f", DOWN, DOWN, ENTER)
    assert (ui.page, ui.selected) == (Page.DETAIL, "f4")  # newest first
    assert requests == [ShowFact("f4")]
    ui, requests = pressed("f", ENTER, DOWN)
    assert requests == [ShowFact("f6"), ShowFact("f5")]
    assert pressed("f", ENTER, ESCAPE)[0].page is Page.FACTS
    assert pressed("f", ESCAPE)[0].page is Page.OVERVIEW
    assert pressed(ENTER)[0].page is Page.FACTS


@pytest.mark.parametrize(
    ("keys", "selected"),
    [
        ((END,), "f1"),
        ((END, HOME), "f6"),
        ((PAGE_DOWN,), "f1"),
        ((PAGE_DOWN, PAGE_UP), "f6"),
        (("j", "j", "k"), "f5"),
        ((UP,), "f6"),
    ],
)
def test_the_cursor_stays_within_the_facts(keys: tuple[str, ...], selected: str) -> None:
    assert pressed("f", *keys)[0].selected == selected


def test_without_facts_nothing_can_be_picked() -> None:
    ui, requests = pressed("f", DOWN, ENTER, state=State())
    assert (ui.page, ui.selected, requests) == (Page.FACTS, "", [])


@pytest.mark.parametrize(
    ("filter_", "ids"),
    [
        ("kyzara 3", ["f3"]),
        ("RAINCOAT 2", ["f2"]),
        ("known", ["f2"]),
        ("lost", ["f1"]),
        ("nothing like it", []),
        ("", ["f6", "f5", "f4", "f3", "f2", "f1"]),
    ],
)
def test_the_filter_knows_texts_and_states(filter_: str, ids: list[str]) -> None:
    state = folded(eventful())
    ui, _ = pressed("/", *filter_, ENTER, state=state)
    assert not ui.typing
    assert [fact.id for fact in shown_facts(state, ui)] == ids


def test_the_filter_is_mended_and_taken_back() -> None:
    assert pressed("/", "a", "b", BACKSPACE, ENTER)[0].filter == "a"
    assert pressed("/", "a", ESCAPE)[0].filter == ""
    assert pressed("/", "a", ENTER, ESCAPE)[0].filter == ""
    assert pressed("/", UP, "\x00")[0].filter == ""
