"""Readers for public files of edits, which the user brings: one JSON object a line, UTF-8."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from eval.errors import RequestError
from memory_store.facts import question_key

# Malformed lines that an error names; the rest are counted.
NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ZsreRow:
    """One edit of zsRE (Levy et al. 2017, as De Cao et al. 2021 made it a task of editing).

    Attributes:
        id: its line in the file.
        question: taught, with `target`.
        target: the answer that is to be learned.
        rephrase: the question in other words.
        locality_question: one that has nothing to do with it.
        locality_answer: the right answer to that.
    """

    id: str
    question: str
    target: str
    rephrase: str
    locality_question: str
    locality_answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterFactRow:
    """One edit of CounterFact (Meng et al. 2022).

    Attributes:
        id: the case's number.
        question: taught, with `target_new`.
        prompt: the beginning of a sentence that the target ends.
        target_new: what is to be learned, and is false.
        target_true: what is true.
        paraphrases: prompts that the new target ends as well.
        neighbors: prompts that the true target ends, before and after.
    """

    id: str
    question: str
    prompt: str
    target_new: str
    target_true: str
    paraphrases: tuple[str, ...]
    neighbors: tuple[str, ...]


Row = TypeVar("Row", ZsreRow, CounterFactRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits(Generic[Row]):
    """Rows to be taught.

    Attributes:
        rows: in the file's order, no question twice.
        repeated: rows left out because their question is an earlier row's, which they would change.
        without_question: rows left out because they have no question.
    """

    rows: tuple[Row, ...]
    repeated: int
    without_question: int


def read_zsre(path: Path, facts: int | None = None) -> Edits[ZsreRow]:
    """Reads zsRE: question, target_new, rephrase, locality_question and locality_answer a line.

    Args:
        path: of the file.
        facts: how many rows to keep, from the first; None for all.

    Raises:
        RequestError: the file cannot be read, has malformed lines (the message names them), or
            fewer rows than asked for.
    """
    return _edits(path, facts, _zsre_row)


def read_counterfact(path: Path, facts: int | None = None) -> Edits[CounterFactRow]:
    """Reads CounterFact, flattened: see `CounterFactRow`; `question` is null where there is none.

    The fields are case_id, question, prompt, target_new, target_true, paraphrase_prompts and
    neighborhood_prompts. Arguments and errors are those of `read_zsre`.
    """
    return _edits(path, facts, _counterfact_row)


def _zsre_row(number: int, fields: dict[str, Any]) -> ZsreRow:
    return ZsreRow(
        id=str(number),
        question=_text(fields, "question"),
        target=_text(fields, "target_new"),
        rephrase=_text(fields, "rephrase"),
        locality_question=_text(fields, "locality_question"),
        locality_answer=_text(fields, "locality_answer"),
    )


def _counterfact_row(number: int, fields: dict[str, Any]) -> CounterFactRow:
    return CounterFactRow(
        id=str(fields.get("case_id", number)),
        # Absent, null or a text; an empty question for none.
        question="" if fields.get("question") is None else _text(fields, "question"),
        prompt=_text(fields, "prompt"),
        target_new=_text(fields, "target_new"),
        target_true=_text(fields, "target_true"),
        paraphrases=_texts(fields, "paraphrase_prompts"),
        neighbors=_texts(fields, "neighborhood_prompts"),
    )


def _edits(
    path: Path, facts: int | None, read_row: Callable[[int, dict[str, Any]], Row]
) -> Edits[Row]:
    rows: list[Row] = []
    seen: set[str] = set()
    repeated = without_question = 0
    for row in _read(path, read_row):
        if len(rows) == facts:
            break
        key = question_key(row.question)
        if not row.question:
            without_question += 1
        elif key in seen:
            repeated += 1
        else:
            seen.add(key)
            rows.append(row)
    if facts is not None and len(rows) < facts:
        raise RequestError("edits", f"{path} has {len(rows)} different facts, not {facts}")
    return Edits(rows=tuple(rows), repeated=repeated, without_question=without_question)


def _read(path: Path, read_row: Callable[[int, dict[str, Any]], Row]) -> Sequence[Row]:
    """All rows; blank lines are none."""
    rows, malformed = [], []
    for number, line in _lines(path):
        try:
            rows.append(read_row(number, _object(line)))
        except ValueError as error:
            malformed.append(f"line {number}: {error}")
    if malformed:
        more = len(malformed) - NAMED
        named = malformed[:NAMED] + ([f"and {more} more"] if more > 0 else [])
        raise RequestError("edits", f"{path} has malformed lines: {'; '.join(named)}")
    return rows


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        # Only a line feed ends a line: JSON may hold other separators as they are.
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise RequestError("edits", f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError("edits", f"{path} is not UTF-8 (byte {error.start})") from error
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error.msg})") from error
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is no text")
    return value.strip()


def _texts(fields: dict[str, Any], name: str) -> tuple[str, ...]:
    values = fields.get(name)
    if not isinstance(values, list) or not values:
        raise ValueError(f"{name} is no list of texts")
    return tuple(_text({name: value}, name) for value in values)
