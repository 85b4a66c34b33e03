"""The examples run, and show what they say they show."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
Run = Callable[..., str]
LEARNING = ("--learning-rate", "0.003", "--max-steps", "100")

pytestmark = pytest.mark.slow


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an example with `tiny`, in this process, where torch is loaded already."""

    def run(name: str, *arguments: str) -> str:
        path = str(EXAMPLES / name)
        monkeypatch.setattr(sys, "argv", [path, "--model", "tiny", *arguments])
        runpy.run_path(path, run_name="__main__")
        return capsys.readouterr().out

    return run


def test_the_faq_is_known_in_the_end(run: Run) -> None:
    said = run("faq.py", "--policy", "until-known", "--guards", "rehearsal", *LEARNING)
    assert "retention: 4 of 4" in said
    assert re.search(r"transfer: \d of 4", said)


def test_without_guards_it_forgets(run: Run) -> None:
    without, rehearsed = run("forgetting_without_guards.py", *LEARNING).split("guards: rehearsal")
    assert "1 of 4 held" in without
    assert re.search("[34] of 4 held", rehearsed)


def test_the_curve_is_what_the_step_leads_to(run: Run) -> None:
    said = run("compare_rates.py", "--question", "Sky?", "--answer", "P")
    assert len(re.findall(r"^\d\.\de-\d\d  \d\.\d+e[-+]\d+ \|", said, re.MULTILINE)) == 16
    [highest] = re.findall(r"highest: ([\d.]+)", said)
    [taken] = re.findall(r"that step, taken: ([\d.]+)", said)
    assert float(taken) == pytest.approx(float(highest), abs=2e-3)
