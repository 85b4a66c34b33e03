"""Programs of ours never import from the current folder."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from agent.python_command import python_command, python_environment

ROOT = Path(__file__).parents[1]
# They stand where `agent serve` is started, and would be imported.
PLANTED = ("agent.py", "agent/__init__.py", "logging.py", "torch.py", "grpc.py", "encodings.py")
MARK = "open({mark!r}, 'w').close()\n"


def plant(folder: Path) -> Path:
    """Modules that leave a mark when they are imported."""
    mark = folder / "imported"
    for name in PLANTED:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(MARK.format(mark=str(mark)))
    return mark


@pytest.mark.parametrize("path", ["", f"{ROOT}{os.pathsep}", f"{os.pathsep}{ROOT}"])
def test_nothing_is_imported_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    mark = plant(tmp_path)
    known = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{path}{os.pathsep}{known}")
    code = "import logging, agent, subprocess, sys;"
    # What it starts itself does not either.
    code += "subprocess.run([sys.executable, '-c', 'import logging, agent'], check=True)"
    subprocess.run(python_command("-c", code), cwd=tmp_path, env=python_environment(), check=True)
    assert not mark.exists()


def test_variables_are_added() -> None:
    assert python_environment({"SOME": "thing"})["SOME"] == "thing"


def test_all_programs_are_started_this_way() -> None:
    """Also those to come; `{sys.executable}` is in a message."""
    found = [
        file.relative_to(ROOT)
        for folder in ("agent", "eval")
        for file in (ROOT / folder).rglob("*.py")
        if re.search(r"[^{]sys\.executable", file.read_text())
    ]
    assert found == [Path("agent/python_command.py")]
