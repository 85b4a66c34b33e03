"""Reads facts from a file or a pipe: JSON lines or CSV. A bad line is reported by its number."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.cli.policies import given_policy
from agent.errors import AgentError, ConfigError
from agent.server.access.transport import MAX_REQUEST_BYTES
from memory_store.vocabulary import NewFact

FIELDS = (
    "question",
    "answer",
    "correlated_questions",
    "policy",
    "learning_rate",
    "max_steps",
    "id",
    "request_id",
)
# A larger fact would end the whole stream; the server reports smaller ones in detail.
MAX_FACT_BYTES = MAX_REQUEST_BYTES * 3 // 4
STANDARD_INPUT = Path("-")
# In CSV, one cell has all correlated questions.
SEPARATOR = "|"


@dataclass(frozen=True, slots=True)
class FactLine:
    """One line of a file: a fact, or what is wrong with it."""

    number: int
    fact: NewFact | None
    error: str = ""


def read_facts(path: Path) -> Iterator[FactLine]:
    """Reads .jsonl or .csv, by the file's suffix, or standard input; skips empty lines.

    Args:
        path: of the file, or `STANDARD_INPUT`, which is JSON lines if it begins with `{`.

    Raises:
        ConfigError: the file cannot be read, has another suffix, or lacks a CSV header.
    """
    if path == STANDARD_INPUT:
        content = sys.stdin.buffer.read()
        return (_json_lines if content.lstrip().startswith(b"{") else _csv_lines)(content)
    readers = {".jsonl": _json_lines, ".csv": _csv_lines}
    if path.suffix not in readers:
        raise ConfigError(f"{path}: the name must end in {' or '.join(readers)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    return readers[path.suffix](content)


class _RepeatedFieldError(ValueError):
    """A field of an object is given twice."""


def _json_lines(content: bytes) -> Iterator[FactLine]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_without_repeats)
        except UnicodeDecodeError:
            yield FactLine(number, None, "not UTF-8")
        except json.JSONDecodeError as error:
            yield FactLine(number, None, f"not JSON: {error.msg} at column {error.colno}")
        except _RepeatedFieldError as error:
            yield FactLine(number, None, str(error))
        except (ValueError, RecursionError) as error:  # a too long number, or too deep nesting
            yield FactLine(number, None, f"not JSON that can be read: {error}")
        else:
            if isinstance(row, dict):
                yield _fact_line(number, row)
            else:
                yield FactLine(number, None, "not an object: {...}")


def _csv_lines(content: bytes) -> Iterator[FactLine]:
    # Undecodable bytes become lone surrogates, so that one bad line does not affect the others.
    text = content.decode("utf-8-sig", errors="surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns = _columns(reader)
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield FactLine(start, None, f"not CSV: {error}")
            continue
        if len(row) > len(columns):
            yield FactLine(start, None, "more cells than the first line has columns")
        elif row:
            named = zip(columns, row, strict=False)
            yield _fact_line(start, {name: cell for name, cell in named if cell})


def _columns(reader: Iterator[list[str]]) -> list[str]:
    """Reads the header.

    Raises:
        ConfigError: it is missing, or lacks a column that every fact needs.
    """
    try:
        columns = next(reader, [])
    except csv.Error as error:
        raise ConfigError(f"the first line must name the columns: {error}") from error
    missing = {"question", "answer"} - set(columns)
    if missing:
        raise ConfigError(
            f"the first line must name the columns: {', '.join(sorted(missing))} missing"
        )
    if twice := sorted(name for name, count in Counter(columns).items() if count > 1):
        raise ConfigError(f"the first line names the column {twice[0]!r} twice")
    return columns


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds a JSON object; refuses repeated fields, whose value would be ambiguous.

    Raises:
        _RepeatedFieldError: a field is repeated.
    """
    if twice := sorted(name for name, count in Counter(n for n, _ in pairs).items() if count > 1):
        raise _RepeatedFieldError(f"the field {twice[0]!r} is given twice")
    return dict(pairs)


def _fact_line(number: int, row: Mapping[str, Any]) -> FactLine:
    try:
        return FactLine(number, _fact(row))
    except (AgentError, ValueError) as error:
        return FactLine(number, None, str(error))


def _fact(row: Mapping[str, Any]) -> NewFact:
    unknown = set(row) - set(FIELDS)
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}: use {', '.join(FIELDS)}")
    size = 0
    for name, value in row.items():
        for text in value if isinstance(value, list) else [value]:
            size += _utf8_bytes(name, text)
    if size > MAX_FACT_BYTES:
        raise ValueError(f"{size} bytes of text are too many for a fact: at most {MAX_FACT_BYTES}")
    correlated = row.get("correlated_questions") or []
    if isinstance(correlated, str):
        correlated = [part.strip() for part in correlated.split(SEPARATOR)]
    if not isinstance(correlated, list) or not all(isinstance(q, str) for q in correlated):
        raise ValueError("correlated_questions: must be a list of texts")
    steps = _number(row, "max_steps")
    if steps is not None and not steps.is_integer():
        raise ValueError("max_steps: must be a whole number")
    return NewFact(
        question=_text(row, "question") or "",
        answer=_text(row, "answer") or "",
        correlated_questions=tuple(correlated),
        policy=given_policy(
            _text(row, "policy"),
            _number(row, "learning_rate"),
            None if steps is None else int(steps),
        ),
        request_id=_text(row, "request_id"),
        fact_id=_text(row, "id"),
    )


def _utf8_bytes(name: str, value: Any) -> int:
    """Returns the size of a text as it is sent."""
    if not isinstance(value, str):
        return 0
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{name}: must be UTF-8") from None


def _text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name}: must be a text")
    return value


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: must be a number") from None
