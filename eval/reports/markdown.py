"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.reports.html import Part, Section
from eval.reports.plots import Picture, ThemedPicture
from eval.reports.tables import Table


def markdown(table: Table, provenance: Mapping[str, Any]) -> str:
    """A page with one table, and where it comes from."""
    lines = [
        f"# {table.title}",
        "",
        table_text(table),
        "In parentheses: counts with 95% Wilson intervals. Answers are generated greedily.",
        "",
        *(f"- {name}: {_escaped(str(value))}" for name, value in provenance.items()),
    ]
    return "\n".join(lines) + "\n"


def document(title: str, lead: Sequence[str], parts: Sequence[Part]) -> str:
    """A page of parts, with its pictures as files in the same folder.

    Args:
        title: its heading.
        lead: paragraphs below it.
        parts: in order.
    """
    blocks = [f"# {_escaped(title)}", *map(_escaped, lead)]
    for part in parts:
        match part:
            case Section():
                blocks += [f"## {_escaped(part.title)}", *map(_escaped, part.paragraphs)]
            case Table():
                blocks += [f"### {_escaped(part.title)}", table_text(part).rstrip("\n")]
            case Picture():
                blocks.append(f"![{_escaped(part.caption)}]({part.name})")
            case ThemedPicture():
                blocks.append(f"![{_escaped(part.caption)}]({part.name}.png)")
    return "\n\n".join(blocks) + "\n"


def table_text(table: Table) -> str:
    """Header and rows, a line each; the title is left out."""
    lines = (table.header, ("---",) * len(table.header), *table.rows)
    return "".join(f"{_row(line)}\n" for line in lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    """Text that cannot end its cell or its line."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
