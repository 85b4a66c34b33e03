"""The comparison of two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError
from eval.reports.comparison import compare_runs


def counts(**counted: tuple[int, int]) -> dict[str, Any]:
    return {name: {"count": count, "total": total} for name, (count, total) in counted.items()}


def folder(path: Path, results: dict[str, Any]) -> Path:
    path.mkdir()
    (path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return path


def paper(seed: int, **counted: tuple[int, int]) -> dict[str, Any]:
    origin = {"commit": "abc", "date": f"day {seed}", "wall_seconds": seed}
    settings = {"suite": "paper", "seed": seed}
    return {
        "suite": "paper",
        "settings": settings,
        "provenance": {**settings, **origin},
        "counts": counts(**counted),
    }


def test_counts_that_both_have_are_compared(tmp_path: Path):
    first = folder(tmp_path / "a", paper(0, up=(10, 100), down=(50, 100), same=(5, 50), x=(1, 2)))
    second = folder(tmp_path / "b", paper(1, up=(40, 100), down=(5, 100), same=(6, 50), y=(1, 2)))
    found = compare_runs(first, second)
    assert [(count.name, count.change) for count in found.counts] == [
        ("up", "more"),
        ("down", "less"),
        ("same", "no clear difference"),
    ]
    assert (found.settings, found.missing) == ({"seed": (0, 1)}, ("x", "y"))
    assert found.as_json()["counts"][0]["difference_interval_95"][0] > 0


def test_runs_of_the_suite_continual_are_compared_by_teacher(tmp_path: Path):
    def run(recall: int) -> dict[str, Any]:
        teachers = {"ours": {"counts": counts(recall=(recall, 50))}}
        return {"suite": "continual", "settings": {}, "provenance": {}, "teachers": teachers}

    found = compare_runs(folder(tmp_path / "a", run(10)), folder(tmp_path / "b", run(40)))
    assert [(count.name, count.change) for count in found.counts] == [("ours: recall", "more")]


def test_what_cannot_be_compared(tmp_path: Path):
    run = folder(tmp_path / "run", paper(0, x=(1, 2)))
    with pytest.raises(ConfigError, match=r"has no results\.json"):
        compare_runs(run, tmp_path)
    with pytest.raises(ConfigError, match="no count in common"):
        compare_runs(run, folder(tmp_path / "other", paper(0, y=(1, 2))))
    with pytest.raises(ConfigError, match="of no suite that can be compared"):
        compare_runs(run, folder(tmp_path / "zsre", {"suite": "zsre"}))
    continual = {"suite": "continual", "settings": {}, "provenance": {}, "teachers": {}}
    with pytest.raises(ConfigError, match="only runs of one suite"):
        compare_runs(run, folder(tmp_path / "continual", continual))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot read"):
        compare_runs(run, tmp_path / "torn")
