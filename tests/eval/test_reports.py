"""Tables, pictures and the page: what they hold, and what they must not."""

from __future__ import annotations

import importlib
from html.parser import HTMLParser
from typing import Any

import pytest

from agent.errors import ConfigError
from eval.metrics import Count
from eval.reports.html import page
from eval.reports.markdown import markdown
from eval.reports.plots import Picture, require_matplotlib
from eval.reports.tables import Table, shown_change, shown_count

HOSTILE = "<script>alert(1)</script> | a\n\\b"


def test_counts_are_shown_with_denominator_and_interval():
    assert shown_count(Count(count=8, total=10)) == "80.0% (8 of 10; 49.0-94.3%)"
    assert shown_count(Count(count=0, total=0)) == "-"
    assert [shown_change(c) for c in (0.1, -0.25, None, float("inf"))] == [
        *("+10.0%", "-25.0%"),
        *("-", "beyond measure"),
    ]


def test_markdown_cells_cannot_be_left():
    lines = markdown(Table("T", ("a", "b"), ((HOSTILE, "c"),)), {"seed": 0}).split("\n")
    assert lines[4] == "| <script>alert(1)</script> \\| a \\\\b | c |"
    assert "- seed: 0" in lines


class Links(HTMLParser):
    """Collects what a page would fetch or run, and its words."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: set[str] = set()
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_is_self_contained_and_shows_text_as_text():
    table = Table(HOSTILE, ("head",), ((HOSTILE,),))
    text = page(HOSTILE, [table, table], [Picture("a.png", HOSTILE, b"png")], {HOSTILE: HOSTILE})
    links = Links()
    links.feed(text)
    assert links.fetched == ["data:image/png;base64,cG5n"]
    assert not links.tags & {"script", "link", "iframe"}
    assert "url(" not in text
    assert "@import" not in text
    assert HOSTILE in links.words
    assert "color-scheme: light dark" in text


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"continual-agent\[eval\]"):
        require_matplotlib()
