"""Pages show every fact once; a token works for its own list in its own store only."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory_store import paging
from memory_store.errors import InvalidPageTokenError
from memory_store.paging import decode_page_token, encode_page_token
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState
from tests.store.builders import ids, new_fact

STATES = (FactState.QUEUED, FactState.LEARNING)


def fill(store: MemoryStore, count: int) -> None:
    for number in range(count):
        store.teach(new_fact(f"q{number}", "a", fact_id=f"fact{number}"))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 6])
@pytest.mark.parametrize("states", [(), STATES])
def test_pages_show_every_fact_once(
    store: MemoryStore, count: int, states: tuple[FactState, ...]
) -> None:
    fill(store, count)
    store.claim()
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        page, token = paging.page(store, 3, token, states)
        assert len(page) == 3 or not token
        seen += ids(page)
        pages += 1
    assert seen == [f"fact{number}" for number in range(count)]
    assert pages == max(1, -(-count // 3))


def test_a_token_belongs_to_its_filter(store: MemoryStore) -> None:
    fill(store, 3)
    _, token = paging.page(store, 1, "", STATES)
    assert paging.page(store, 1, token, STATES[::-1])[0] == paging.page(store, 1, token, STATES)[0]
    for other in [(), STATES[:1], (*STATES, FactState.KNOWN)]:
        with pytest.raises(InvalidPageTokenError):
            paging.page(store, 1, token, other)


def test_a_token_belongs_to_its_store(store: MemoryStore, tmp_path: Path) -> None:
    fill(store, 2)
    _, token = paging.page(store, 1)
    with MemoryStore.open(tmp_path / "other.db") as other, pytest.raises(InvalidPageTokenError):
        paging.page(other, 1, token)


def test_a_token_outlives_a_restart(path: Path) -> None:
    with MemoryStore.open(path) as store:
        fill(store, 2)
        _, token = paging.page(store, 1)
    with MemoryStore.open(path) as store:
        assert ids(paging.page(store, 1, token)[0]) == ["fact1"]


def test_a_token_cannot_be_altered() -> None:
    token = encode_page_token(7, STATES, b"secret")
    assert decode_page_token(token, STATES, b"secret") == 7
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    altered = [token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1 :] for i in range(32)]
    for bad in [*altered, "", "x", "é", "=", token[:-4], token + "AAAA", token + "\n", " " + token]:
        with pytest.raises(InvalidPageTokenError):
            decode_page_token(bad, STATES, b"secret")
    with pytest.raises(InvalidPageTokenError):
        decode_page_token(token, STATES, b"other")


@pytest.mark.parametrize("states", [(), STATES])
def test_the_newest_may_come_first(store: MemoryStore, states: tuple[FactState, ...]) -> None:
    fill(store, 4)
    store.claim()
    page, token = paging.page(store, 3, "", states, newest_first=True)
    assert ids(page) == ["fact3", "fact2", "fact1"]
    with pytest.raises(InvalidPageTokenError):
        paging.page(store, 3, token, states)  # it belongs to its order
    page, token = paging.page(store, 3, token, states, newest_first=True)
    assert (ids(page), token) == (["fact0"], "")
    assert ids(paging.page(store, 9, "", [FactState.LEARNING], newest_first=True)[0]) == ["fact0"]
