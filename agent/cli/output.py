"""What the commands print: tables for people, one JSON object for programs, errors in one line."""

from __future__ import annotations

import codecs
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
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
# Progress and errors: standard output stays clean for what was asked for.
messages = Console(stderr=True)


@dataclass(slots=True)
class JsonState:
    """Whether the command that runs is to print an object, and has.

    Attributes:
        asked: by `--json` or a setting.
        printed: its one object, or its error.
    """

    asked: bool = False
    printed: bool = False


json_state = JsonState()


def print_json(result: Mapping[str, Any]) -> None:
    """One object on standard output, whatever reads it.

    It may be a terminal: what is not printable is escaped. It may lack characters: then all but
    ASCII is. JSON has no NaN and no infinity: they are null.
    """
    unicode = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    text = json.dumps(_finite(result), ensure_ascii=not unicode, allow_nan=False)
    sys.stdout.write("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text) + "\n")
    json_state.printed = True


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def shown(text: str, style: str = "") -> Text:
    """Text from outside, safe for a terminal: no markup, no escape sequences."""
    return Text(escaped(text), style=style)


def state_text(state: FactState) -> Text:
    """A state in its colour."""
    return Text(state.value, style=STATE_STYLES.get(state, "yellow"))


def progress_bar() -> Progress:
    """A bar with counts and times, on standard error; nothing where that is no terminal."""
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
    learning = fact.learning
    return {
        "id": fact.id,
        "state": fact.state.value,
        "question": fact.question,
        "answer": fact.answer,
        "learning_rates": list(learning.learning_rates) if learning else [],
        "steps": len(learning.learning_rates) if learning else 0,
        "probability_before": learning.probability_before if learning else None,
        "probability_after": learning.probability_after if learning else None,
        "answer_before": learning.answer_before if learning else None,
        "answer_after": learning.answer_after if learning else None,
        "model_version": learning.model_version if learning else None,
        "reason": fact.reason,
    }
