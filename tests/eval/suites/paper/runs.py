"""Runs of the suite for tests: at the smallest scale, in a folder, with any backend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval.suites.paper.cell_store import open_store
from eval.suites.paper.facts import FACT_SETS
from eval.suites.paper.measurements import Measurement
from eval.suites.paper.results import results_json
from eval.suites.paper.summary import Request, RunSummary, summarize_run
from eval.suites.paper.trial_backend import TrialBackend
from eval.suites.paper.trial_loop import run_trials


def request(
    experiments: tuple[int, ...] = (1, 2, 3, 4),
    *,
    seed: int = 0,
    fact_sets: tuple[str, ...] = FACT_SETS,
) -> Request:
    """The smallest that there is."""
    return Request(
        protocol="code",
        scale="smoke",
        share=0.0,
        experiments=experiments,
        fact_sets=fact_sets,
        seed=seed,
        estimates=True,
    )


class KeptInMemory:
    """A store without a file."""

    def __init__(self) -> None:
        self._cells: list[Measurement] = []
        self._losses: dict[Any, Any] = {}

    def done(self) -> set[Any]:
        """Keys of all cells."""
        return {cell.key for cell in self._cells}

    def add(self, cell: Measurement) -> None:
        """Keeps a cell."""
        self._cells.append(cell)

    def add_loss(self, trial: Any, step: int, loss: float | None) -> None:
        """Keeps a loss."""
        place = trial.experiment, trial.fact_set
        self._losses.setdefault(place, {})[trial.trained, trial.learning_rate, step] = loss

    def cells(self, experiment: int, fact_set: str) -> list[Measurement]:
        """In the order of their keys."""
        place = experiment, fact_set
        return sorted((c for c in self._cells if c.key[:2] == place), key=lambda c: c.key)

    def losses(self, experiment: int, fact_set: str) -> dict[Any, Any]:
        """By what was trained, rate and step."""
        return dict(self._losses.get((experiment, fact_set), {}))

    def notes(self) -> list[str]:
        """None."""
        return []


def replayed_in_memory(asked: Request, backend: TrialBackend, model: str = "fake") -> RunSummary:
    """Runs all of it."""
    store: Any = KeptInMemory()
    run_trials(asked.trials(), backend, store, lambda what, samples: None)
    return summarize_run(asked, model, store)


def replayed(
    folder: Path, asked: Request, backend: TrialBackend, model: str = "fake"
) -> RunSummary:
    """Runs what is missing and reads all of it."""
    with open_store(folder) as store:
        run_trials(asked.trials(), backend, store, lambda what, samples: None)
        return summarize_run(asked, model, store)


def results_text(run: RunSummary) -> str:
    """The results file without provenance."""
    return json.dumps(results_json(run, {}), allow_nan=False)
