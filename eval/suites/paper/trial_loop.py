"""Runs the planned trials, cell by cell, without those that are stored already."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

from eval.suites.paper.cell_store import CellStore
from eval.suites.paper.trial_backend import TrialBackend
from eval.suites.paper.trials import CellKey, Stop, Trial

# Called with the name of the work, and how many more samples are done.
Progress = Callable[[str, int], None]


def run_trials(
    trials: Iterable[Trial], backend: TrialBackend, store: CellStore, progress: Progress
) -> None:
    """Measures every cell that is not in the store.

    Intermediate weights are not stored: a trial with missing cells is trained again from the base
    model, which gives the same weights.

    Raises:
        DiskFullError: a cell cannot be stored.
    """
    done = store.done()
    for trial in trials:
        name = f"experiment {trial.experiment}, {trial.fact_set} facts"
        if any(_missing(stop, done) for stop in trial.stops):
            _run_trial(trial, backend, store, done, partial(progress, name))


def _run_trial(
    trial: Trial,
    backend: TrialBackend,
    store: CellStore,
    done: set[CellKey],
    progress: Callable[[int], None],
) -> None:
    backend.back_to_base()
    step = 0
    last = max(stop.step for stop in trial.stops if _missing(stop, done))
    for stop in trial.stops:
        if stop.step > last:
            break
        while step < stop.step:
            loss = backend.step(trial.pairs, trial.learning_rate)
            step += 1
            store.add_loss(trial, step, loss if math.isfinite(loss) else None)
        if _missing(stop, done):
            for cell in backend.ask(stop.calls, done):
                store.add(cell)
                progress(cell.samples)


def _missing(stop: Stop, done: set[CellKey]) -> bool:
    return any(cell.key not in done for call in stop.calls for cell in call.cells)
