"""A run that is broken off anywhere goes on, and comes to the same results."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from agent.errors import ConfigError, DiskFullError
from agent.models.loading import load
from eval.suites.paper import cell_store, trial_loop
from eval.suites.paper.cell_store import CELLS, open_store
from eval.suites.paper.measurements import Measurement
from eval.suites.paper.model_backend import ModelBackend
from eval.suites.paper.summary import RunSummary
from eval.suites.paper.trials import Trial
from memory_store import connection
from memory_store.errors import StoreUnusableError
from memory_store.store import MemoryStore
from tests.eval.suites.paper.fake_backend import FakeBackend
from tests.eval.suites.paper.runs import replayed, request, results_text

INTERRUPTIONS = 10
# Where the run is interrupted: at any line of these.
OURS = {module.__file__ for module in (trial_loop, cell_store, connection)}


def test_the_log_of_a_long_run_stays_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_store, "LOG_PAGES", 20)
    trial = Trial(
        experiment=1, fact_set="paper", trained="sky", pairs=(), learning_rate=1e-3, stops=()
    )
    with open_store(tmp_path) as cells:
        for step in range(60):
            cells.add_loss(trial, step, 1.0)
        assert (tmp_path / f"{CELLS}-wal").stat().st_size < 40 * 4096


@contextmanager
def interrupted_at(moment: int) -> Iterator[None]:
    """Ctrl-C at the n-th line of our code."""
    left = moment

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in OURS:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def lines_of(whole: Callable[[], object]) -> int:
    """How many lines of our code a whole run takes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += frame.f_code.co_filename in OURS and event == "line"
        return trace if frame.f_code.co_filename in OURS else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        whole()
    finally:
        sys.settrace(before)
    return count


def run_interrupted(go_on: Callable[[], object], lines: int, seed: int) -> int:
    """Breaks a run off ten times; says how often that came before its end."""
    draw = random.Random(seed)
    interruptions = 0
    for _ in range(INTERRUPTIONS):
        try:
            with interrupted_at(draw.randint(1, lines // INTERRUPTIONS)):
                go_on()
        except KeyboardInterrupt:
            interruptions += 1
    return interruptions


def test_ten_interruptions_change_nothing(tmp_path: Path):
    asked = request((2, 3), fact_sets=("paper",))
    (tmp_path / "whole").mkdir()
    whole = FakeBackend()
    lines = lines_of(lambda: replayed(tmp_path / "whole", asked, whole))
    expected = results_text(replayed(tmp_path / "whole", asked, FakeBackend()))
    (tmp_path / "broken").mkdir()
    broken = FakeBackend()

    def go_on() -> RunSummary:
        return replayed(tmp_path / "broken", asked, broken)

    assert run_interrupted(go_on, lines, seed=1) == INTERRUPTIONS
    assert results_text(go_on()) == expected
    # What was stored is not asked again: at most one cell an interruption was lost.
    assert len(whole.asked) <= len(broken.asked) <= len(whole.asked) + INTERRUPTIONS


@pytest.mark.slow
def test_ten_interruptions_change_nothing_of_a_real_model(tmp_path: Path):
    trials = request((3,), fact_sets=("paper",)).trials()[1:2]
    backend = ModelBackend(load("tiny", device="cpu"), seed=0, estimates=False)

    def run_in(folder: Path) -> list[Measurement]:
        folder.mkdir(exist_ok=True)
        with open_store(folder) as stored:
            trial_loop.run_trials(trials, backend, stored, lambda what, samples: None)
            return stored.cells(3, "paper")

    expected = run_in(tmp_path / "whole")
    assert len(expected) == 30
    lines = lines_of(lambda: run_in(tmp_path / "counted"))
    broken = tmp_path / "broken"
    assert run_interrupted(lambda: run_in(broken), lines, seed=2) == INTERRUPTIONS
    assert run_in(broken) == expected


def test_a_finished_run_does_nothing_again(tmp_path: Path):
    asked = request((3,), fact_sets=("paper",))
    replayed(tmp_path, asked, FakeBackend())
    again = FakeBackend()
    told: list[int] = []
    with open_store(tmp_path) as stored:
        trial_loop.run_trials(
            asked.trials(), again, stored, lambda what, samples: told.append(samples)
        )
    assert (again.taken, again.asked, told) == (0, [], [])


def test_a_disk_that_is_full_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(self: Any, sql: str, values: Any = ()) -> Any:
        if sql.startswith("INSERT INTO cells"):
            raise StoreUnusableError("no space")
        return plain(self, sql, values)

    with open_store(tmp_path) as stored:
        plain = connection.Connection.execute
        monkeypatch.setattr(connection.Connection, "execute", full)
        with pytest.raises(DiskFullError, match="run the same command again"):
            trial_loop.run_trials(
                request().trials(), FakeBackend(), stored, lambda what, samples: None
            )


def test_a_damaged_store_is_refused(tmp_path: Path):
    (tmp_path / CELLS).write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with pytest.raises(ConfigError, match=r"cells\.sqlite cannot be used"), open_store(tmp_path):
        pass


def test_one_query_reads_cells_and_the_probes_of_the_service(tmp_path: Path):
    cells = list(FakeBackend().ask(list(request((2,)).trials()[0].calls), set()))
    with open_store(tmp_path) as stored:
        stored.add(cells[0])
    MemoryStore.open(tmp_path / "service.sqlite").connection.close()
    columns = []
    for name in (CELLS, "service.sqlite"):
        opened = connection.Connection(tmp_path / name, read_only=True)
        rows = opened.execute("SELECT name FROM pragma_table_info('probes')")
        columns.append({row["name"] for row in rows})
        query = "SELECT kind, question, samples, correct_samples, log_probability FROM probes"
        found = [tuple(row) for row in opened.execute(query)]
        assert len(found) == (name == CELLS)
        opened.close()
    assert columns[0] == columns[1]


def test_a_cell_comes_back_as_it_was_stored(tmp_path: Path):
    trials = request((2,)).trials()
    cells = list(FakeBackend().ask(list(trials[0].calls), set()))
    with open_store(tmp_path) as stored:
        for cell in cells:
            stored.add(cell)
        stored.add_loss(trials[1], 1, 3.5)
        stored.add_loss(trials[1], 2, None)
        stored.note("a note")
        stored.note("a note")
        stored.add_time("now", 1.5)
        stored.add_time("later", 2.0)
    with open_store(tmp_path) as stored:
        assert sorted(stored.cells(2, "paper"), key=lambda c: c.key) == sorted(
            cells, key=lambda c: c.key
        )
        assert stored.done() == {cell.key for cell in cells}
        assert stored.losses(2, "paper") == {("all", 5e-5, 1): 3.5, ("all", 5e-5, 2): None}
        assert (stored.notes(), stored.seconds()) == (["a note"], 3.5)
