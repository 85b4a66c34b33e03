"""`agent eval --suite paper`: the experiments of the paper, replayed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text

from agent.cli.eval_options import wrong_usage
from agent.cli.model_fetch import fetch_if_missing
from agent.cli.output import console, messages, print_json, progress_bar, shown
from agent.errors import AgentError, DiskFullError, ModelFetchError

if TYPE_CHECKING:
    from agent.models.loading import LoadedModel
    from eval.suites.paper.cell_store import RunStore
    from eval.suites.paper.summary import Replay, Request
    from eval.suites.paper.trial_backend import Lab
    from eval.suites.paper.trials import CellKey, Trial


PANEL = "Suite paper"
_TICK_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperOptions:
    """The options that only this suite has, as they were given."""

    experiments: Annotated[
        str,
        typer.Option(help="Which of the four, joined by commas.", rich_help_panel=PANEL),
    ] = "1,2,3,4"
    protocol: Annotated[
        str,
        typer.Option(
            help="'code', what the author's scripts do, or 'paper', what the text says.",
            rich_help_panel=PANEL,
        ),
    ] = "code"
    scale: Annotated[
        str,
        typer.Option(
            help="'full', 'smoke' (the least), or a share of the full cost.", rich_help_panel=PANEL
        ),
    ] = "full"
    fact_sets: Annotated[
        str,
        typer.Option(
            help="The paper's ten facts, ten of other words and forms, or both.",
            rich_help_panel=PANEL,
        ),
    ] = "paper,held-out"
    estimates: Annotated[
        bool,
        typer.Option(
            help="Beside counting, estimate rare answers along the sampled paths.",
            rich_help_panel=PANEL,
        ),
    ] = True
    models: Annotated[
        str | None,
        typer.Option(
            help="Several models in place of --model, joined by commas.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None


def run_paper_suite(
    options: PaperOptions,
    *,
    models: Sequence[str],
    seed: int,
    device: str,
    threads: int | None,
    out: Path | None,
    json: bool,
) -> None:
    """Runs what is missing, prints what was found, and writes the report.

    Args:
        options: of this suite.
        models: known names, Hub ids or folders; each has a folder of its own if there are several.
        seed: of rates, samples and held-out facts.
        device: auto, cpu or cuda.
        threads: CPU threads; None leaves it to torch.
        out: folder of the results; None prints them only.
        json: print one object.

    Raises:
        typer.BadParameter: an option is wrong, a model cannot be used, or the folder is of another
            run. Nothing is written then.
    """
    from eval.reports.plots import require_matplotlib

    request = _request(options, seed)
    _require_models(models, device)
    if out is not None:
        require_matplotlib()
    several = len(models) > 1
    replays = []
    for model in models:
        folder = out / _folder_name(model) if out and several else out
        replays.append(_run_model(model, request, folder, device, threads))
    if out is not None and several:
        _write_overview(out, replays)
    if json:
        _print_json(replays)
    else:
        for replay in replays:
            _print(replay)


def _request(options: PaperOptions, seed: int) -> Request:
    from eval.suites.paper.facts import FACT_SETS
    from eval.suites.paper.protocol import PROTOCOLS, scale_of
    from eval.suites.paper.registry import chosen_experiments
    from eval.suites.paper.summary import Request

    if options.protocol not in PROTOCOLS:
        raise typer.BadParameter(f"choose {' or '.join(PROTOCOLS)}", param_hint="--protocol")
    fact_sets = tuple(dict.fromkeys(name.strip() for name in options.fact_sets.split(",")))
    if unknown := set(fact_sets) - set(FACT_SETS):
        raise typer.BadParameter(
            f"unknown facts {min(unknown)!r}: use some of {', '.join(FACT_SETS)}",
            param_hint="--fact-sets",
        )
    with _wrong("--experiments"):
        experiments = chosen_experiments(options.experiments)
    with _wrong("--scale"):
        share = scale_of(options.scale)
    return Request(
        protocol=options.protocol,
        scale=options.scale,
        share=share,
        experiments=experiments,
        fact_sets=fact_sets,
        seed=seed,
        estimates=options.estimates,
    )


def _require_models(models: Sequence[str], device: str) -> None:
    """Finds what is wrong before a model is fetched and loaded."""
    from agent.models import catalog
    from agent.models.loading import choose_device

    with _wrong("--device"):
        choose_device(device)
    with _wrong("--model"):
        for model in models:
            catalog.resolve(model)


def _run_model(
    model: str, request: Request, out: Path | None, device: str, threads: int | None
) -> Replay:
    from eval.suites.paper.model_backend import ModelLab

    loaded = _load(model, device, threads)
    with _wrong("--model"):
        lab = ModelLab(loaded, seed=request.seed, estimates=request.estimates)
    if out is not None:
        return _run_in(out, request, loaded, lab, keep=True)
    with tempfile.TemporaryDirectory(prefix="agent-eval-") as folder:
        return _run_in(Path(folder) / "run", request, loaded, lab, keep=False)


def _run_in(out: Path, request: Request, loaded: LoadedModel, lab: Lab, *, keep: bool) -> Replay:
    from eval.provenance import provenance
    from eval.run_folder import claimed
    from eval.suites.paper.cell_store import open_store
    from eval.suites.paper.summary import read_replay

    origin: dict[str, Any] = provenance(loaded)
    with (
        wrong_usage(),
        claimed(out, {**request.as_json(), **origin}),
        open_store(out) as store,
    ):
        _measure(request, lab, store, out if keep else None)
        replay = read_replay(request, loaded.name, store)
        seconds = store.seconds()
        origin |= {
            "scale": request.scale_told,
            "wall_seconds": round(seconds, 1),
            "tokens_sampled": replay.tokens,
            "tokens_per_second": round(replay.tokens / seconds, 1) if seconds else None,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if keep:
            _write(out, replay, {**request.as_json(), **origin})
    return replay


def _load(model: str, device: str, threads: int | None) -> LoadedModel:
    import torch

    from agent.learner.environment import make_deterministic
    from agent.models.loading import load

    fetch_if_missing(model)
    make_deterministic(threads)
    # The scripts know no TF32.
    torch.set_float32_matmul_precision("highest")
    with _wrong("--model"):
        return load(model, device=device)


def _measure(request: Request, lab: Lab, store: RunStore, out: Path | None) -> None:
    from eval.run_folder import interruptible
    from eval.suites.paper.trial_loop import run

    trials = request.trials()
    for note in lab.notes(call for trial in trials for call in trial.calls):
        store.note(note)
    messages.print(shown(request.scale_told), soft_wrap=True)
    clock = _Clock(store)
    try:
        with interruptible(out), _shown_progress(trials, store.done()) as progress:

            def done(what: str, samples: int) -> None:
                progress(what, samples)
                clock.tick()

            run(trials, lab, store, done)
    finally:
        clock.stop()


class _Clock:
    """Stores how long a run takes, now and then, so that a crash loses little of it."""

    def __init__(self, store: RunStore) -> None:
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


class _Speed(ProgressColumn):
    """Samples a second."""

    def render(self, task: Task) -> Text:
        return Text(
            "" if task.speed is None else f"{task.speed:,.0f}/s", style="progress.data.speed"
        )


@contextmanager
def _shown_progress(
    trials: list[Trial], stored: set[CellKey]
) -> Iterator[Callable[[str, int], None]]:
    """One bar over all samples, with their rate and the time left."""
    cells = [cell for trial in trials for call in trial.calls for cell in call.cells]
    total = sum(cell.samples for cell in cells)
    before = sum(cell.samples for cell in cells if cell.key in stored)
    bars: Progress = progress_bar()
    bars.columns = (*bars.columns, _Speed())
    with bars:
        task = bars.add_task("samples", total=total, completed=before)

        def progress(what: str, samples: int) -> None:
            bars.update(task, description=what, advance=samples)

        yield progress


def _write(out: Path, replay: Replay, provenance: dict[str, Any]) -> None:
    from eval.suites.paper.report import write_paper_report

    try:
        write_paper_report(out, replay, provenance)
    except OSError as error:
        raise DiskFullError(
            f"cannot write the report to {out} ({error.strerror}): make room and run the same"
            " command again; nothing is measured twice"
        ) from error


def _write_overview(out: Path, replays: list[Replay]) -> None:
    from eval.suites.paper.report import write_overview

    try:
        write_overview(out, {_folder_name(replay.model): replay for replay in replays})
    except OSError as error:
        raise DiskFullError(f"cannot write to {out} ({error.strerror}): make room") from error


def _print(replay: Replay) -> None:
    from eval.suites.paper.findings import findings

    request = replay.request
    console.print(
        shown(f"{replay.model}, protocol {request.protocol}, {request.scale_told}"), soft_wrap=True
    )
    for note in replay.notes:
        console.print(shown(note), soft_wrap=True)
    for number, told in findings(replay).items():
        console.print(f"Experiment {number}", style="bold")
        for sentence in told:
            console.print(shown(sentence), soft_wrap=True)


def _print_json(replays: list[Replay]) -> None:
    from eval.suites.paper.results import summary_json

    found = [summary_json(replay) for replay in replays]
    print_json(found[0] if len(found) == 1 else {"suite": "paper", "models": found})


def _folder_name(model: str) -> str:
    """The last part of a name, Hub id or path."""
    return Path(model).name or "model"


@contextmanager
def _wrong(option: str) -> Iterator[None]:
    """Our errors inside are wrong usage of an option, unless disk or network failed."""
    try:
        yield
    except (DiskFullError, ModelFetchError):
        raise
    except AgentError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
