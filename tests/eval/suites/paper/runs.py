"""Runs of the suite for tests: at the smallest scale, in a folder, with any lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval.suites.paper.cell_store import open_store
from eval.suites.paper.facts import FACT_SETS
from eval.suites.paper.measurements import MeasuredCell
from eval.suites.paper.results import results_json
from eval.suites.paper.summary import Replay, Request, read_replay
from eval.suites.paper.trial_backend import Lab
from eval.suites.paper.trial_loop import run


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
        self._cells: list[MeasuredCell] = []
        self._losses: dict[Any, Any] = {}

    def done(self) -> set[Any]:
        """Keys of all cells."""
        return {cell.key for cell in self._cells}

    def add(self, cell: MeasuredCell) -> None:
        """Keeps a cell."""
        self._cells.append(cell)

    def add_loss(self, trial: Any, step: int, loss: float | None) -> None:
        """Keeps a loss."""
        place = trial.experiment, trial.fact_set
        self._losses.setdefault(place, {})[trial.trained, trial.learning_rate, step] = loss

    def cells(self, experiment: int, fact_set: str) -> list[MeasuredCell]:
        """In the order of their keys."""
        place = experiment, fact_set
        return sorted((c for c in self._cells if c.key[:2] == place), key=lambda c: c.key)

    def losses(self, experiment: int, fact_set: str) -> dict[Any, Any]:
        """By what was trained, rate and step."""
        return dict(self._losses.get((experiment, fact_set), {}))

    def notes(self) -> list[str]:
        """None."""
        return []


def replayed_in_memory(asked: Request, lab: Lab, model: str = "fake") -> Replay:
    """Runs all of it."""
    store: Any = KeptInMemory()
    run(asked.trials(), lab, store, lambda what, samples: None)
    return read_replay(asked, model, store)


def replayed(folder: Path, asked: Request, lab: Lab, model: str = "fake") -> Replay:
    """Runs what is missing and reads all of it."""
    with open_store(folder) as store:
        run(asked.trials(), lab, store, lambda what, samples: None)
        return read_replay(asked, model, store)


def results_text(replay: Replay) -> str:
    """The results file without provenance."""
    return json.dumps(results_json(replay, {}), allow_nan=False)
