"""What the commands print: tables for people, one JSON object for programs, errors in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
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
from memory_store.records import Fact, FactState

console = Console()
# Progress and errors: standard output stays clean for what was asked for.
messages = Console(stderr=True)


def print_json(result: Mapping[str, Any]) -> None:
    """One object on standard output, which may be a terminal: what is not printable is escaped."""
    text = json.dumps(result, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text) + "\n")


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
