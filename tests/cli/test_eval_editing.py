"""`agent eval --suite zsre|counterfact`: results of a file of edits, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli.conftest import Agent

ZSRE = {
    "subject": "Charity Creek",
    "question": "Which river system contains Charity Creek?",
    "target_new": "Chichester River",
    "rephrase": "What river system is Charity Creek in?",
    "locality_question": "how many hands has a clock",
    "locality_answer": "2",
    "true_answers": ["Parramatta River"],
    "model_pred": "Parramatta River",
}
COUNTERFACT = {
    "case_id": 0,
    "relation_id": "P103",
    "subject": "Danielle Darrieux",
    "prompt": "The mother tongue of Danielle Darrieux is",
    "question": "What is the mother tongue of Danielle Darrieux?",
    "target_new": "English",
    "target_true": "French",
    "paraphrase_prompts": ["Where she is from, people speak"],
    "neighborhood_prompts": ["The mother tongue of Montesquieu is"],
    "attribute_prompts": ["Douglas Adams speaks"],
}
SHORT = ("--model", "tiny", "--device", "cpu", "--teachers", "retrieval", "--facts", "1")


def edits(folder: Path, row: Mapping[str, object]) -> str:
    file = folder / "edits.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("suite", "row", "metric"),
    [("zsre", ZSRE, "reliability"), ("counterfact", COUNTERFACT, "ES")],
)
def test_a_suite_prints_its_metrics_and_keeps_them(
    agent: Agent, tmp_path: Path, suite: str, row: Mapping[str, object], metric: str
) -> None:
    out = tmp_path / "out"
    file = edits(tmp_path, row)
    ran = agent("eval", "--suite", suite, "--edits", file, *SHORT, "--out", str(out), "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["suite"], ran.json["facts"], ran.json["model"]) == (suite, 1, "tiny")
    assert metric in json.dumps(ran.json["teachers"][0])
    assert json.loads((out / "results.json").read_text()) == ran.json
    assert "retrieval" in (out / "results.md").read_text()
    again = agent("eval", "--suite", suite, "--edits", file, *SHORT, "--out", str(out))
    assert again.code == 2
    assert json.loads((out / "results.json").read_text()) == ran.json


def test_a_suite_needs_its_file_in_its_own_format(agent: Agent, tmp_path: Path) -> None:
    missing = agent("eval", "--suite", "zsre", *SHORT)
    assert (missing.code, "--edits" in missing.err) == (2, True)
    other = agent("eval", "--suite", "counterfact", "--edits", edits(tmp_path, ZSRE), *SHORT)
    assert (other.code, "line 1" in other.err) == (2, True)
