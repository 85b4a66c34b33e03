"""Suite `paper` from request to report: one model after the other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from agent.errors import AgentError
from agent.models.loading import LoadedModel
from eval.errors import RequestError
from eval.provenance import provenance
from eval.reports.plots import require_matplotlib
from eval.run_folder import claimed, interruptible, report_files
from eval.suites.paper import model_backend
from eval.suites.paper.cell_store import CellStore, open_store
from eval.suites.paper.report import write_overview, write_paper_report
from eval.suites.paper.summary import Request, RunSummary, summarize_run
from eval.suites.paper.trial_backend import TrialBackend
from eval.suites.paper.trial_loop import Progress, run_trials

# Shows progress; called with the samples of a run, and how many of them are stored already.
ShowProgress = Callable[[int, int], AbstractContextManager[Progress]]
_TICK_SECONDS = 10.0


def run_suite(
    request: Request,
    models: Sequence[str],
    load: Callable[[str], LoadedModel],
    show: ShowProgress,
    out: Path | None,
) -> list[RunSummary]:
    """Measures what is missing with each model, and writes the reports.

    Args:
        request: what is measured.
        models: known names, Hub ids or folders.
        load: loads one of them at its base checkpoint.
        show: see `ShowProgress`.
        out: folder of the results, with a folder for each of several models; None keeps nothing.

    Raises:
        RequestError: a model cannot be used, or the folder is of another run.
        ConfigError: matplotlib is not installed, or another run is using the folder.
        DiskFullError: results cannot be written.
        KeyboardInterrupt: by Ctrl-C; its message says how to go on.
    """
    if out is not None:
        require_matplotlib()
    several = len(models) > 1
    runs = []
    for model in models:
        folder = out / _folder_name(model) if out and several else out
        runs.append(_run_model(request, load(model), show, folder))
    if out is not None and several:
        with report_files(out):
            write_overview(out, {_folder_name(run.model): run for run in runs})
    return runs


def _folder_name(model: str) -> str:
    """The last part of a name, Hub id or path."""
    return Path(model).name or "model"


def _run_model(
    request: Request, loaded: LoadedModel, show: ShowProgress, out: Path | None
) -> RunSummary:
    # The paper's scripts use no TF32.
    torch.set_float32_matmul_precision("highest")
    try:
        backend = model_backend.ModelBackend(loaded, seed=request.seed, estimates=request.estimates)
    except AgentError as error:
        raise RequestError("model", str(error)) from error
    origin = provenance(loaded)
    settings = {**request.as_json(), **origin}
    with tempfile.TemporaryDirectory(prefix="agent-eval-") as temporary:
        folder = out or Path(temporary) / "run"
        with claimed(folder, settings), open_store(folder) as store:
            with interruptible(out):
                _measure(request, backend, store, show)
            run = summarize_run(request, loaded.name, store)
            if out is not None:
                with report_files(out):
                    write_paper_report(out, run, {**settings, **_cost(run, store)})
    return run


def _measure(request: Request, backend: TrialBackend, store: CellStore, show: ShowProgress) -> None:
    trials = request.trials()
    calls = [call for trial in trials for call in trial.calls]
    for note in backend.notes(calls):
        store.note(note)
    cells = [cell for call in calls for cell in call.cells]
    stored = store.done()
    clock = _Clock(store)
    try:
        with show(
            sum(cell.samples for cell in cells),
            sum(cell.samples for cell in cells if cell.key in stored),
        ) as progress:

            def measured(what: str, samples: int) -> None:
                progress(what, samples)
                clock.tick()

            run_trials(trials, backend, store, measured)
    finally:
        clock.stop()


def _cost(run: RunSummary, store: CellStore) -> dict[str, Any]:
    """What a report says about a run, apart from settings and environment."""
    seconds = store.seconds()
    return {
        "scale": run.request.scale_text,
        "wall_seconds": round(seconds, 1),
        "tokens_sampled": run.tokens,
        "tokens_per_second": round(run.tokens / seconds, 1) if seconds else None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class _Clock:
    """Stores the time that a run takes every few seconds, so that a crash loses little of it."""

    def __init__(self, store: CellStore) -> None:
        self._store = store
        self._started, self._began = datetime.now(UTC).isoformat(), time.monotonic()
        self._stored = self._began

    def tick(self) -> None:
        """Stores it if that is due."""
        if time.monotonic() - self._stored > _TICK_SECONDS:
            self.stop()

    def stop(self) -> None:
        """Stores it."""
        self._stored = time.monotonic()
        self._store.add_time(self._started, self._stored - self._began)
