"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.reports.tables import Table


def markdown(table: Table, provenance: Mapping[str, Any]) -> str:
    """A page with one table, and where it comes from."""
    lines = [
        f"# {table.title}",
        "",
        _row(table.header),
        _row(["---"] * len(table.header)),
        *(_row(row) for row in table.rows),
        "",
        "In parentheses: counts with 95% Wilson intervals. Answers are generated greedily.",
        "",
        *(f"- {name}: {_escaped(str(value))}" for name, value in provenance.items()),
    ]
    return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    """Text that cannot end its cell or its line."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
