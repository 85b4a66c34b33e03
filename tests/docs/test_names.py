"""Whoever follows a name in the documentation, or in a comment, finds what it names."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# They tell of the past, in the words of their day.
HISTORY = ("docs/LOG.md", "CHANGELOG.md", "docs/results/")
PACKAGES = ("agent", "memory_store", "eval", "scripts", "proto", "docs")
PATH_NAME = re.compile(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.(?:py|proto))(?::[\w.]+)?`")
FUNCTION_NAME = re.compile(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)`: `([\w.]+)`")
DOTTED_NAME = re.compile(
    r"(?<![\w./-])(?:agent|memory_store|eval)(?:\.[a-z_][a-z_0-9]*)+(?:\.\w+)*"
)
CODE_WORD = re.compile(r"\w+")


def tracked(*patterns: str) -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in done.stdout.splitlines() if not name.startswith(HISTORY)]


FILES = tracked()
PAGES = tracked("*.md")
SOURCES = [name for name in tracked("*.py", "*.proto") if "_pb2" not in name and "buf/" not in name]


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_are_there(page: str) -> None:
    """`agent/models/catalog.py` from the root, or by its end: `models/catalog.py`."""
    missing = {
        path
        for path in PATH_NAME.findall((ROOT / page).read_text(encoding="utf-8"))
        if not any(f"/{name}".endswith(f"/{path}") for name in FILES)
    }
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_functions_that_a_page_names_are_in_their_file(page: str) -> None:
    """As in the stops of a fact in docs/design.md."""
    missing = [
        f"{path}: {function}"
        for path, function in FUNCTION_NAME.findall((ROOT / page).read_text(encoding="utf-8"))
        if not any(
            set(function.split("."))
            <= set(CODE_WORD.findall((ROOT / name).read_text(encoding="utf-8")))
            for name in FILES
            if f"/{name}".endswith(f"/{path}")
        )
    ]
    assert not missing


@pytest.mark.parametrize("folder", PACKAGES)
def test_modules_that_a_text_names_are_there(folder: str) -> None:
    missing = [
        f"{name}: {dotted}"
        for name in (*SOURCES, *PAGES)
        if name.startswith(f"{folder}/")
        for dotted in dotted_names(name)
        if not exists(dotted)
    ]
    assert not missing


def dotted_names(name: str) -> Iterator[str]:
    """Dotted names in a file, of comments and strings as well as of code."""
    for found in DOTTED_NAME.findall((ROOT / name).read_text(encoding="utf-8")):
        if not found.endswith((".py", ".md", ".toml", ".db", ".json", ".html")):
            yield found


def exists(dotted: str) -> bool:
    """Whether it is a module, or something that a module says."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        module = ROOT.joinpath(*parts[:end])
        source = next(
            (path for path in (module.with_suffix(".py"), module / "__init__.py") if path.exists()),
            None,
        )
        if source is not None:
            words = set(CODE_WORD.findall(source.read_text(encoding="utf-8")))
            return set(parts[end:]) <= words
        if end == len(parts) and module.is_dir():
            return True
    return False
