"""The report: its files, its figures next to the published ones, and its sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.metrics import Count
from eval.reports.comparison import compare_runs
from eval.reports.tables import shown_fraction
from eval.suites.paper.findings import findings
from eval.suites.paper.report import write_overview, write_paper_report
from eval.suites.paper.results import named_counts, results_json
from eval.suites.paper.summary import RunSummary
from eval.suites.paper.tables import tables
from tests.eval.suites.paper.fake_backend import FakeBackend
from tests.eval.suites.paper.runs import replayed_in_memory, request
from tests.eval.test_reports import Links

ORIGIN = {"model": "fake", "commit": "abc", "wall_seconds": 1.0}


@pytest.fixture(scope="module")
def run() -> RunSummary:
    return replayed_in_memory(request(), FakeBackend())


def test_tables_1_and_2_stand_beside_both_denominators(run: RunSummary):
    first, second, finer = tables(run, 2, "paper")
    assert len(first.rows) == len(second.rows) == 10
    assert len(finer.rows) == 20
    zogron = dict(zip(first.header, first.rows[0], strict=True))
    assert zogron["1 epoch: published"] == "370"
    assert zogron["of 80,000 (as printed)"] == "0.462% (0.418 to 0.512%)"
    assert zogron["of 8,000 (as coded)"] == "4.62% (4.19 to 5.11%)"
    assert second.rows[0][5] == "311"
    held_out, _, _ = tables(run, 2, "held-out")
    assert not any("published" in name for name in held_out.header)


def test_sentences_tell_of_every_experiment_and_set_of_facts(run: RunSummary):
    told = findings(run)
    assert list(told) == [1, 2, 3, 4]
    for sentences in told.values():
        assert sentences[0].startswith("The paper facts: ")
        assert sentences[1].startswith("The held-out facts: ")
    text = " ".join(told[1] + told[2])
    assert "published 501 of 800" in text
    assert "published 4.220" in text
    assert "these of fake" in text
    assert "of 8,000 samples" in text
    assert "of 80,000 samples" in text


def test_results_hold_every_cell_and_all_of_the_protocol(run: RunSummary):
    results = results_json(run, ORIGIN)
    cells = results["cells"]
    # 4 rates, 4 samples: (10 + 40) + 80 + (10 + 120) + (10 + 120), with two sets of facts.
    assert len(cells["rows"]) == 2 * 390
    row = dict(zip(cells["columns"], cells["rows"][0], strict=True))
    assert (row["experiment"], row["samples"], row["kind"]) == (1, 4, "retention")
    assert results["protocol"]["full"]["one_fact"]["samples"] == 800
    assert results["protocol"]["used"]["one_fact"]["samples"] == 4
    assert results["scale"].startswith("REDUCED SCALE")
    assert results["tokens_sampled"] == run.tokens > 0
    assert results["provenance"] == ORIGIN
    table = results["experiments"]["2"]["paper"]["table_1"]
    assert table[0]["published"]["of_80000"]["after"]["count"] == 370
    json.dumps(results, allow_nan=False)


@pytest.mark.slow
def test_the_report_has_all_its_files(tmp_path: Path):
    asked = request(fact_sets=("held-out",))
    write_paper_report(tmp_path, replayed_in_memory(asked, FakeBackend()), ORIGIN)
    drawn = {path.stem for path in tmp_path.glob("*.png")}
    names = {"figure-1", "figure-1-facts", "figure-1-overlap", "figure-2", "figure-2-steps"}
    names |= {"figure-3"}
    assert drawn == {f"{name}-held-out" for name in names}
    assert {path.stem for path in tmp_path.glob("*.svg")} == drawn
    links = Links()
    links.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    # A picture for light and one for dark pages each, all of them inside.
    assert len(links.fetched) == len(drawn)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in links.fetched)
    assert not links.tags & {"script", "link", "iframe"}
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    for page in (links.words, markdown):
        assert "REDUCED SCALE" in page
        assert "Experiment 4" in page
    assert "![Figure 2: right answers at each rate" in markdown
    assert "](figure-2-held-out.png)" in markdown


@pytest.mark.slow
def test_pictures_are_the_same_each_time(tmp_path: Path):
    asked = request((4,), fact_sets=("paper",))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_paper_report(tmp_path / folder, replayed_in_memory(asked, FakeBackend()), {})
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_several_models_stand_beside_each_other(run: RunSummary, tmp_path: Path):
    other = replayed_in_memory(request((1,)), FakeBackend(best_rate=5e-4), "other")
    write_overview(tmp_path, {"fake": run, "other": other})
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| experiment, facts: count | fake | other |" in text
    assert "replayed with 2 models" in text


def test_the_results_of_a_run_can_be_compared_with_themselves(run: RunSummary, tmp_path: Path):
    results = json.dumps(results_json(run, ORIGIN))
    (tmp_path / "results.json").write_text(results, encoding="utf-8")
    found = compare_runs(tmp_path, tmp_path)
    assert [count.name for count in found.counts] == [name for name, _ in named_counts(run)]
    assert {count.change.value for count in found.counts} == {"no clear difference"}
    assert (found.settings, found.missing) == ({}, ())


def test_shares_are_shown_with_what_they_need():
    assert shown_fraction(Count(4, 80)) == "4 of 80 (5%; 1.96 to 12.2%)"
    assert shown_fraction(Count(1, 80_000)) == "1 of 80,000 (0.0013%; 0.00022 to 0.0071%)"
    assert shown_fraction(Count(0, 0)) == "-"
