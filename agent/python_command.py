"""Starting Python programs of our own, so that they never import from the current folder.

A folder may hold a stranger's `agent.py`, `logging.py` or `torch.py`. `python -m` and `python -c`
would import it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

# Names that secrets go by, and values that hold one: https://user:password@host.
SECRET_NAME = re.compile(
    r"(^|_)(TOKENS?|SECRET\w*|PASSWORD|PASSWD|CREDENTIALS?|(API|ACCESS|PRIVATE)_?KEY|HEADERS)(_|$)",
    re.IGNORECASE,
)
SECRET_VALUE = re.compile(r"://[^/@\s]*:[^/@\s]*@")


def python_command(*arguments: str) -> list[str]:
    """The command line of this Python with some arguments, the current folder left out (`-P`)."""
    return [sys.executable, "-P", *arguments]


def python_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment for such a program, and for the programs that it starts.

    An empty entry of PYTHONPATH would mean the current folder: it is left out.

    Args:
        more: variables to add.
    """
    found = {**os.environ, "PYTHONSAFEPATH": "1", **(more or {})}
    if "PYTHONPATH" in found:
        entries = [entry for entry in found["PYTHONPATH"].split(os.pathsep) if entry]
        found["PYTHONPATH"] = os.pathsep.join(entries)
    if not found.get("PYTHONPATH"):
        found.pop("PYTHONPATH", None)
    return found


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a process may have that needs no tokens, passwords or keys.

    What it has stands in /proc and in its core dumps, and whoever breaks into it has it too.
    """
    return {
        name: value
        for name, value in environment.items()
        if not SECRET_NAME.search(name) and not SECRET_VALUE.search(value)
    }
