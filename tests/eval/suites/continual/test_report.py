"""Tables, pictures and files of the suite `continual`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from eval.suites.continual.pictures import pictures
from eval.suites.continual.report import write_report
from eval.suites.continual.summary import Summary, summarize
from eval.suites.continual.tables import comparison, course, retention
from tests.eval.suites.continual.test_results import TASK, history


@pytest.fixture(scope="module")
def summaries() -> list[Summary]:
    return [summarize(name, TASK, history(own)) for name, own in (("ours", "1101"), ("b", "1111"))]


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
