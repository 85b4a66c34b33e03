"""The examples run, and show what they say they show."""

from __future__ import annotations

import re
import runpy
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
Run = Callable[..., str]
LEARNING = ("--learning-rate", "0.003", "--max-steps", "100")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def torch_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


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


def test_the_flat_loop_learns_refuses_writes_and_replays(run: Run, tmp_path: Path) -> None:
    ledger = str(tmp_path / "facts.db")
    first = run("teach_loop.py", "--ledger", ledger)
    assert len(re.findall(r"^learned in \d+ steps", first, re.MULTILINE)) == 3
    assert re.search(r"^refused after \d+ steps: .*lost: probability 0\.", first, re.MULTILINE)
    assert first.count("asked:") == 3
    assert "(wrong)" not in first
    assert ", the same digest" in first
    with closing(sqlite3.connect(ledger)) as rows:
        written = rows.execute("SELECT version, answer, rehearsed, digest FROM updates").fetchall()
    assert [row[:3] for row in written] == [
        (1, "Raincoat", "[]"),
        (2, "Backpack", "[0]"),
        (3, "Curtain", "[0, 1]"),
    ]
    assert all(digest[:12] in first for *_, digest in written)
    # A restart is a replay: nothing is learned again.
    second = run("teach_loop.py", "--ledger", ledger)
    assert second.startswith("3 facts replayed")
    assert "learned in" not in second
    assert f"replayed: {written[-1][3][:12]}, the same digest" in second


def test_the_flat_loop_notices_a_ledger_that_replays_differently(run: Run, tmp_path: Path) -> None:
    ledger = tmp_path / "facts.db"
    run("teach_loop.py", "--ledger", str(ledger), "--max-steps", "50")
    with closing(sqlite3.connect(ledger)) as rows, rows:
        rows.execute("UPDATE updates SET rates = replace(rates, '0.003', '0.004')")
    with pytest.raises(SystemExit, match="replays differently here"):
        run("teach_loop.py", "--ledger", str(ledger))
