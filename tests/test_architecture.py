"""Rules of the architecture that import-linter cannot tell; its contracts are in pyproject.toml."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ["agent", "eval", "memory_store"]
LIGHT_MODULES = [  # what starts with every command: torch takes seconds to import
    "agent.errors",
    "memory_store.errors",
    "memory_store.vocabulary",
    "memory_store.store",
]


def imported_modules(source: Path) -> set[str]:
    """Absolute names of all modules that a source file imports, inside functions as well."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"), source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            modules.add(node.module)
    return modules


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_uses_the_sqlite_of_the_machine(package: str):
    """It may have the bug that loses committed rows when the WAL is reset; pysqlite3 has not."""
    sources = sorted((ROOT / package).rglob("*.py"))

    offenders = [
        str(source.relative_to(ROOT))
        for source in sources
        if any(module.partition(".")[0] == "sqlite3" for module in imported_modules(source))
    ]

    assert sources
    assert not offenders, f"import pysqlite3 instead of sqlite3 in {', '.join(offenders)}"


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_do_not_import_torch(module: str):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr or f"importing {module} imports torch"
