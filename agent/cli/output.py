"""The output of commands: tables for people, one JSON object for programs, errors in one line."""

from __future__ import annotations

import codecs
import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from agent.monitor.styles import STATE_STYLES
from agent.printable import escaped
from memory_store.vocabulary import Fact, FactState

console = Console()
# For progress and errors, so that standard output has only results.
messages = Console(stderr=True)


@dataclass(slots=True)
class JsonState:
    """The state of the JSON output of the current command.

    Attributes:
        asked: JSON was asked for, by `--json` or a setting.
        printed: its one object, or its error, was printed.
    """

    asked: bool = False
    printed: bool = False


json_state = JsonState()


def print_json(result: Any) -> None:
    """Prints one object on standard output: dataclasses as objects, times as ISO 8601.

    For a terminal, what is not printable is escaped; so is all but ASCII if the output's encoding
    is not UTF-8. NaN and infinity, which JSON lacks, are null.
    """
    unicode = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    text = json.dumps(_plain(result), ensure_ascii=not unicode, allow_nan=False)
    sys.stdout.write("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text) + "\n")
    json_state.printed = True


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def some_of(record: Any, names: str) -> dict[str, Any]:
    """Some fields of a record, in this order; all null if the record is None."""
    return {name: getattr(record, name, None) for name in names.split()}


def shown(text: str, style: str = "") -> Text:
    """Makes text from outside safe for a terminal: without markup and escape sequences."""
    return Text(escaped(text), style=style)


def state_text(state: FactState) -> Text:
    """Returns a state in its color."""
    return Text(state.value, style=STATE_STYLES.get(state, "yellow"))


def progress_bar() -> Progress:
    """Makes a progress bar on standard error; it shows nothing if that is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    )


def fact_json(fact: Fact) -> dict[str, Any]:
    """The stable fields of a fact."""
    rates = fact.learning.learning_rates if fact.learning else ()
    return {
        **some_of(fact, "id state question answer"),
        "learning_rates": rates,
        "steps": len(rates),
        **some_of(
            fact.learning,
            "probability_before probability_after answer_before answer_after model_version",
        ),
        "reason": fact.reason,
    }
