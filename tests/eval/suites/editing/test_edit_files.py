"""Readers: what they keep, what they leave out, and malformed lines by their number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError
from eval.suites.editing.edit_files import CounterFactRow, ZsreRow, read_counterfact, read_zsre

ZSRE = {
    "subject": "Charity Creek",
    "question": "Which river system contains Charity Creek?",
    "target_new": "Chichester River",
    "rephrase": "What river system is Charity Creek in?",
    "locality_question": "who sang it",
    "locality_answer": "Ann",
}
COUNTERFACT = {
    "case_id": 12,
    "question": "What is the mother tongue of Ann?",
    "prompt": "The mother tongue of Ann is",
    "target_new": "English",
    "target_true": "French",
    "paraphrase_prompts": ["Ann speaks"],
    "neighborhood_prompts": ["Bob speaks", "Cid speaks"],
}


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "edits.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def zsre(question: str) -> dict[str, Any]:
    return {**ZSRE, "question": question}


def test_a_row_of_zsre(tmp_path: Path):
    edits = read_zsre(written(tmp_path, "", ZSRE))
    assert edits.rows == (
        ZsreRow(
            id="2",
            question="Which river system contains Charity Creek?",
            target="Chichester River",
            rephrase="What river system is Charity Creek in?",
            locality_question="who sang it",
            locality_answer="Ann",
        ),
    )


def test_a_row_of_counterfact(tmp_path: Path):
    edits = read_counterfact(written(tmp_path, COUNTERFACT))
    assert edits.rows == (
        CounterFactRow(
            id="12",
            question="What is the mother tongue of Ann?",
            prompt="The mother tongue of Ann is",
            target_new="English",
            target_true="French",
            paraphrases=("Ann speaks",),
            neighbors=("Bob speaks", "Cid speaks"),
        ),
    )


def test_the_first_of_a_repeated_question_is_kept_and_the_rest_is_counted(tmp_path: Path):
    path = written(tmp_path, zsre("Who?"), zsre("Where?"), zsre("who? "), zsre("When?"))
    edits = read_zsre(path)
    assert [row.question for row in edits.rows] == ["Who?", "Where?", "When?"]
    assert edits.repeated == 1


def test_rows_without_a_question_are_left_out_and_counted(tmp_path: Path):
    without = {key: value for key, value in COUNTERFACT.items() if key != "question"}
    path = written(tmp_path, {**COUNTERFACT, "question": None}, COUNTERFACT, without)
    edits = read_counterfact(path)
    assert [row.id for row in edits.rows] == ["12"]
    assert (edits.without_question, edits.repeated) == (2, 0)


def test_only_so_many_facts_are_kept_and_what_follows_is_not_counted(tmp_path: Path):
    path = written(tmp_path, zsre("A?"), zsre("A?"), zsre("B?"), zsre("B?"), zsre("C?"))
    edits = read_zsre(path, facts=2)
    assert [row.question for row in edits.rows] == ["A?", "B?"]
    assert edits.repeated == 1
    with pytest.raises(ConfigError, match="has 3 different facts, not 4"):
        read_zsre(path, facts=4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2: no JSON \("),
        ("[1]", "line 2: no JSON object"),
        ({**ZSRE, "rephrase": " "}, "line 2: rephrase is no text"),
        ({**ZSRE, "target_new": 7}, "line 2: target_new is no text"),
        ({}, "line 2: question is no text"),
    ],
)
def test_a_malformed_line_of_zsre_is_named(tmp_path: Path, line: Any, message: str):
    with pytest.raises(ConfigError, match=f"edits.jsonl has malformed lines: {message}"):
        read_zsre(written(tmp_path, ZSRE, line, ZSRE), facts=1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("question", 3, "question is no text"),
        ("target_true", None, "target_true is no text"),
        ("paraphrase_prompts", [], "paraphrase_prompts is no list of texts"),
        ("neighborhood_prompts", "Bob", "neighborhood_prompts is no list of texts"),
        ("neighborhood_prompts", ["Bob", None], "neighborhood_prompts is no text"),
    ],
)
def test_a_malformed_line_of_counterfact_is_named(
    tmp_path: Path, field: str, value: Any, message: str
):
    path = written(tmp_path, {**COUNTERFACT, field: value})
    with pytest.raises(ConfigError, match=f"line 1: {message}"):
        read_counterfact(path)


def test_many_malformed_lines_are_counted(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"line 1: .*line 5: no JSON object; and 2 more$"):
        read_zsre(written(tmp_path, *["[]"] * 7))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.jsonl cannot be read: No such file"):
        read_zsre(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"{\xe9}")
    with pytest.raises(ConfigError, match=r"latin\.jsonl is not UTF-8 \(byte 1\)"):
        read_zsre(tmp_path / "latin.jsonl")


def test_only_a_line_feed_ends_a_line(tmp_path: Path):
    edits = read_zsre(written(tmp_path, json.dumps(zsre("Who\u2028is?"), ensure_ascii=False)))
    assert edits.rows[0].question == "Who\u2028is?"
