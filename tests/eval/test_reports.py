"""Tables, pictures and the page: what they hold, and what they must not."""

from __future__ import annotations

import importlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError
from eval.metrics import Count
from eval.reports.html import page
from eval.reports.markdown import markdown
from eval.reports.plots import Picture, pictures, require_matplotlib
from eval.reports.tables import Table, comparison, course, retention, shown_change, shown_count
from eval.suites.continual.report import write_report
from eval.suites.continual.summary import Summary, summarise
from tests.eval.suites.continual.test_results import TASK, history

HOSTILE = "<script>alert(1)</script> | a\n\\b"


@pytest.fixture(scope="module")
def summaries() -> list[Summary]:
    return [summarise(name, TASK, history(own)) for name, own in (("ours", "1101"), ("b", "1111"))]


def test_counts_are_shown_with_denominator_and_interval():
    assert shown_count(Count(count=8, total=10)) == "80.0% (8 of 10; 49.0-94.3%)"
    assert shown_count(Count(count=0, total=0)) == "-"
    assert [shown_change(c) for c in (0.1, -0.25, None, float("inf"))] == [
        *("+10.0%", "-25.0%"),
        *("-", "beyond measure"),
    ]


def test_teachers_stand_beside_each_other(summaries: list[Summary]):
    table = comparison(summaries)
    assert table.header == ("after all facts", "ours", "b")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["recall"] == ("75.0% (3 of 4; 30.1-95.4%)",) * 2
    assert rows["WikiText perplexity"] == ("+10.0%", "+10.0%")
    assert rows["BWT"] == ("0", "-0.333")
    assert rows["verdicts"][0] == "1 known, 2 learned, 1 resisted"


def test_the_course_and_the_ages_are_tables(summaries: list[Summary]):
    assert [row[0] for row in course(summaries[0]).rows] == ["none", "2", "4"]
    assert [row[0] for row in retention(summaries[0]).rows] == [
        "right after its own turn",
        "0 taught since",
        "1-3 taught since",
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


def test_every_picture_is_a_png_and_the_same_each_time(summaries: list[Summary]):
    drawn = pictures(summaries)
    assert [picture.name for picture in drawn] == [
        *("recall.png", "paraphrase.png", "transfer.png", "leak.png", "retention.png"),
        *("perplexity.png", "rates-ours.png", "matrix-ours.png", "rates-b.png", "matrix-b.png"),
    ]
    assert all(picture.png.startswith(b"\x89PNG") for picture in drawn)
    assert pictures(summaries[:1])[-1].png == drawn[7].png


def test_the_report_has_all_its_files(tmp_path: Path, summaries: list[Summary]):
    write_report(tmp_path, {"seed": 0}, {"model": "tiny", "commit": None}, TASK, summaries)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"results.json", "results.md", "report.html", "recall.png"} <= names
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["provenance"] == {"model": "tiny", "commit": None}
    assert set(results["teachers"]) == {"ours", "b"}
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(re.findall("data:image/png;base64", html)) == len(list(tmp_path.glob("*.png")))
    assert "4 facts, taught one by one to tiny" in html


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"continual-agent\[eval\]"):
        require_matplotlib()
