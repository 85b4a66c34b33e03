"""Files of facts: what is read, and by which line number the rest is refused."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from agent.cli.fact_files import FactLine, read_facts
from agent.errors import ConfigError
from memory_store.vocabulary import NewFact, Policy
from tests.cli.conftest import Agent, InThread

SKY = '{"question": "Sky?", "answer": "Piano"}'


@pytest.fixture
def read(tmp_path: Path):
    """Writes a file and reads it: the facts by line, and what is wrong with the other lines."""

    def read(name: str, content: str | bytes) -> tuple[dict[int, NewFact], dict[int, str]]:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        lines: list[FactLine] = list(read_facts(path))
        assert len({line.number for line in lines}) == len(lines)
        facts = {line.number: line.fact for line in lines if line.fact is not None}
        return facts, {line.number: line.error for line in lines if line.fact is None}

    return read


BAD_JSON = {
    "not JSON": ('{"question": "Sky?",}', "not JSON"),
    "not an object": ('["Sky?", "Piano"]', "not an object"),
    "a bare text": ('"Sky?"', "not an object"),
    "two objects": (f"{SKY} {SKY}", "not JSON"),
    "a field twice": (
        '{"question": "Sky?", "answer": "Piano", "answer": "Tuba"}',
        "the field 'answer' is given twice",
    ),
    "unknown field": ('{"question": "Sky?", "anwser": "Piano"}', "unknown field 'anwser'"),
    "question of a wrong type": ('{"question": 1, "answer": "Piano"}', "question: must be a text"),
    "answer of a wrong type": ('{"question": "Sky?", "answer": ["Piano"]}', "answer: must be"),
    "correlated of a wrong type": (
        '{"question": "S?", "answer": "P", "correlated_questions": [1]}',
        "correlated_questions: must be a list of texts",
    ),
    "correlated as an object": (
        '{"question": "S?", "answer": "P", "correlated_questions": {"a": 1}}',
        "correlated_questions: must be a list of texts",
    ),
    "rate of a wrong type": (
        '{"question": "S?", "answer": "P", "learning_rate": "fast"}',
        "learning_rate: must be a number",
    ),
    "rate that is a truth value": (
        '{"question": "S?", "answer": "P", "learning_rate": true}',
        "learning_rate: must be a number",
    ),
    "rate out of range": (
        '{"question": "S?", "answer": "P", "learning_rate": 1.0}',
        "learning_rate: 1 is out of range",
    ),
    "rate that is no number": (
        '{"question": "S?", "answer": "P", "learning_rate": NaN}',
        "learning_rate: nan is out of range",
    ),
    "steps that are not whole": (
        '{"question": "S?", "answer": "P", "max_steps": 1.5}',
        "max_steps: must be a whole number",
    ),
    "steps that are endless": (
        '{"question": "S?", "answer": "P", "max_steps": Infinity}',
        "max_steps: must be a whole number",
    ),
    "steps beyond any float": (
        '{"question": "S?", "answer": "P", "max_steps": 1' + "0" * 400 + "}",
        "max_steps: must be a number",
    ),
    "a number of five thousand digits": (
        '{"question": "S?", "answer": "P", "max_steps": ' + "1" * 5000 + "}",
        "not JSON",
    ),
    "a hundred thousand brackets": ("[" * 100_000, "not JSON"),
    "unknown policy": (
        '{"question": "S?", "answer": "P", "policy": "magic"}',
        "unknown policy 'magic'",
    ),
    "half a surrogate pair": (r'{"question": "\ud83d?", "answer": "P"}', "question: must be UTF-8"),
    "half a surrogate pair in a list": (
        r'{"question": "S?", "answer": "P", "correlated_questions": ["\ud83d"]}',
        "correlated_questions: must be UTF-8",
    ),
}


@pytest.mark.parametrize(("line", "error"), BAD_JSON.values(), ids=BAD_JSON)
def test_a_bad_json_line_is_named_by_its_number_and_the_others_are_read(
    read, line: str, error: str
) -> None:
    facts, errors = read("facts.jsonl", f"{SKY}\n\n{line}\n{SKY}\n")
    assert list(facts) == [1, 4]
    assert list(errors) == [3]
    assert error in errors[3]


def test_a_json_line_that_is_not_utf8_does_not_spoil_the_others(read) -> None:
    broken = b'{"question": "caf\xe9?", "answer": "Piano"}'
    facts, errors = read("facts.jsonl", b"\n".join([SKY.encode(), broken, SKY.encode()]))
    assert list(facts) == [1, 3]
    assert errors == {2: "not UTF-8"}


def test_a_json_object_has_every_field(read) -> None:
    facts, errors = read(
        "facts.jsonl",
        '{"question": "Sky?", "answer": "Piano", "correlated_questions": ["Heaven?"],'
        ' "policy": "fixed", "learning_rate": 1e-3, "max_steps": 3, "id": "the-sky",'
        ' "request_id": "r1"}\n',
    )
    assert errors == {}
    assert facts[1] == NewFact(
        question="Sky?",
        answer="Piano",
        correlated_questions=("Heaven?",),
        policy=Policy(name="fixed", learning_rate=1e-3, max_steps=3),
        fact_id="the-sky",
        request_id="r1",
    )


def test_null_is_the_same_as_absent(read) -> None:
    line = '{"question": "Sky?", "answer": "Piano", "policy": null, "correlated_questions": null}'
    facts, _ = read("facts.jsonl", line)
    assert facts[1] == NewFact(question="Sky?", answer="Piano")


def test_windows_line_ends_and_a_byte_order_mark_are_no_part_of_the_facts(read) -> None:
    facts, errors = read("facts.jsonl", b"\xef\xbb\xbf" + f"{SKY}\r\n{SKY}\r\n".encode())
    assert (list(facts), errors) == ([1, 2], {})
    facts, errors = read("facts.csv", b"\xef\xbb\xbfquestion,answer\r\nSky?,Piano\r\n")
    assert (facts, errors) == ({2: NewFact(question="Sky?", answer="Piano")}, {})


def test_an_empty_file_of_lines_holds_no_facts(read) -> None:
    assert read("facts.jsonl", "\n  \n") == ({}, {})


BAD_CSV = {
    "too many cells": ("Sky?,Piano,extra", "more cells"),
    "text after a quote": ('"Sky?"x,Piano', "not CSV"),
}


@pytest.mark.parametrize(("line", "error"), BAD_CSV.values(), ids=BAD_CSV)
def test_a_bad_csv_line_is_named_by_its_number_and_the_others_are_read(
    read, line: str, error: str
) -> None:
    facts, errors = read("facts.csv", f"question,answer\nSea?,Tuba\n\n{line}\n\nGem?,Curtain\n")
    assert list(facts) == [2, 6]
    assert list(errors) == [4]
    assert error in errors[4]


def test_a_quoted_cell_may_hold_separators_quotes_and_line_ends(read) -> None:
    facts, errors = read(
        "facts.csv",
        'question,answer\n"Who, in\n""Emma""?",Jane\nSea?,Tuba,\nSky?,Piano\n',
    )
    assert facts[2].question == 'Who, in\n"Emma"?'
    assert list(errors) == [4]  # lines are counted, not rows
    assert facts[5].answer == "Piano"


@pytest.mark.parametrize("separator", ["\u2028", "\x0b", "\x0c", "\x85", "\x1e"])
def test_only_line_ends_end_a_csv_line(read, separator: str) -> None:
    facts, errors = read("facts.csv", f"question,answer\nSky{separator}?,Piano\nSea?,\n")
    assert facts[2] == NewFact(question=f"Sky{separator}?", answer="Piano")
    assert facts[3].question == "Sea?"
    assert errors == {}


def test_a_csv_line_that_is_not_utf8_does_not_spoil_the_others(read) -> None:
    facts, errors = read("facts.csv", b"question,answer\nSky?,Piano\ncaf\xe9?,Tuba\nGem?,Curtain\n")
    assert list(facts) == [2, 4]
    assert errors == {3: "question: must be UTF-8"}


def test_a_csv_row_has_every_field(read) -> None:
    facts, _ = read(
        "facts.csv",
        "answer,question,correlated_questions,policy,learning_rate,max_steps,id,request_id\n"
        "Piano,Sky?,Heaven? | Clouds?,fixed,1e-3,3,the-sky,r1\n",
    )
    assert facts[2] == NewFact(
        question="Sky?",
        answer="Piano",
        correlated_questions=("Heaven?", "Clouds?"),
        policy=Policy(name="fixed", learning_rate=1e-3, max_steps=3),
        fact_id="the-sky",
        request_id="r1",
    )


def test_an_unclosed_quote_is_named_by_the_line_it_opens_in(read) -> None:
    facts, errors = read("facts.csv", 'question,answer\nSky?,Piano\n"Sea?,Tuba\n')
    assert list(facts) == [2]
    assert list(errors) == [3]


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        ("question,anwser", "answer"),
        ("", "answer, question"),
        ('"question"x,answer', "first line"),
    ],
)
def test_a_csv_header_without_the_columns_is_refused(tmp_path: Path, header, missing) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(f"{header}\nSky?,Piano\n")
    with pytest.raises(ConfigError, match=missing):
        list(read_facts(path))


def test_a_column_twice_is_refused(read) -> None:  # M13
    with pytest.raises(ConfigError, match="names the column 'answer' twice"):
        read("facts.csv", "question,answer,answer\nSky?,Piano,Tuba\n")


def test_an_unknown_column_is_told_on_every_line(read) -> None:
    _, errors = read("facts.csv", "question,answer,rate\nSky?,Piano,1\nSea?,Tuba,2\n")
    assert list(errors) == [2, 3]
    assert "unknown field 'rate'" in errors[2]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"jsonl or \.csv"):
        list(read_facts(tmp_path / "facts.txt"))
    with pytest.raises(ConfigError, match="No such file"):
        list(read_facts(tmp_path / "facts.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="directory"):
        list(read_facts(tmp_path / "folder.csv"))


@pytest.mark.parametrize(
    "piped",
    [
        b'\n{"question": "Sky?", "answer": "Piano"}\n{\n',
        b"question,answer\nSky?,Piano\nSea?,Tuba,too much\n",
    ],
    ids=["jsonl", "csv"],
)
@pytest.mark.parametrize("arguments", [("-",), ("--file", "-")], ids=" ".join)
def test_facts_are_taught_from_a_pipe(
    agent: Agent, server: InThread, monkeypatch: pytest.MonkeyPatch, piped: bytes, arguments
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped)))
    ran = agent("teach", *arguments, "--json")
    assert ran.code == 1  # the other line is wrong
    assert [fact["question"] for fact in ran.json["facts"]] == ["Sky?"]
    assert [error["line"] for error in ran.json["errors"]] == [3]
