"""The reference of the Python API, from signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from enum import EnumMeta
from typing import Any

import agent

# What a heading of a Google docstring begins.
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")


def python_page() -> str:
    """Markdown: every name of the package, with its methods."""
    parts = [
        "# Python",
        "Made from the code: what `from agent import ...` gives. Results are frozen dataclasses, so"
        " that `pandas.DataFrame(client.facts())` is a table, and"
        " `pandas.json_normalize(map(dataclasses.asdict, client.facts()))` one without nested"
        " cells.",
    ]
    for name in agent.__all__:
        parts += _described(name, getattr(agent, name))
    return "\n\n".join(part for part in parts if part) + "\n"


def _described(name: str, kind: Any) -> Iterator[str]:
    yield f"## {name}"
    yield _text(inspect.getdoc(kind))
    if isinstance(kind, EnumMeta):
        yield ", ".join(f"`{value}`" for value in kind.__members__)
        return
    if not dataclasses.is_dataclass(kind) and not issubclass(kind, Exception):
        yield _signature(name, kind)
    for method_name, method in vars(kind).items():
        if method_name.startswith("_") or dataclasses.is_dataclass(kind):
            continue
        function = getattr(method, "__func__", method)
        if inspect.isfunction(function):
            yield f"### {name}.{method_name}"
            yield _signature(method_name, function)
            yield _text(inspect.getdoc(function))


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    text = str(signature.replace(parameters=parameters))
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # annotations are texts
    text = re.sub(r"<function .*?<lambda> at 0x\w+>|(?<== )[A-Z]\w+\(.*?\)", "...", text)
    lines = textwrap.wrap(f"{name}{text}", 84, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(["```text", *lines, "```"])


def _text(docstring: str | None) -> str:
    """A Google docstring: headings become bold, what is below them a list."""
    lines: list[str] = []
    section = False
    for line in (docstring or "").splitlines():
        if SECTION.match(line):
            section = True
            lines += [f"**{line.rstrip(':')}**", ""]
        elif section and line.startswith("    ") and not line.startswith("     "):
            term, colon, meaning = line.strip().partition(": ")
            lines.append(f"- `{term}`: {meaning}" if colon else f"- {line.strip()}")
        elif section and line.startswith("     "):
            lines.append(f"  {line.strip()}")
        else:
            section = False
            lines.append(line)
    return "\n".join(lines)
