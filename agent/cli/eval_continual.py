"""`agent eval --suite continual`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from filelock import FileLock, Timeout
from rich.progress import TaskID
from rich.table import Table

from agent.cli.model_fetch import fetch_if_missing
from agent.cli.output import console, messages, print_json, progress_bar, shown
from agent.errors import ConfigError, DiskFullError
from memory_store.vocabulary import Policy

if TYPE_CHECKING:
    from agent.models.loading import LoadedModel
    from eval.suites.continual.general_texts import GeneralTexts
    from eval.suites.continual.run import Task
    from eval.suites.continual.summary import Summary
    from eval.suites.editing.scoring import ScoringTeacher

ALL_TEXTS = -1
INTERRUPTED = 130
OURS = "ours"
# Taught by the policy that is asked for; the baselines are what they are.
BY_POLICY = (OURS, "ours-unreviewed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinualOptions:
    """The options of the suite, each checked by itself.

    Attributes:
        facts: how many are taught.
        controls: how many control questions are asked.
        seed: of the facts and controls.
        model: known name, Hub id or folder.
        device: auto, cpu or cuda.
        threads: CPU threads; None leaves it to torch.
        policy: of the teacher `ours`.
        teachers: their names.
        out: folder of the results; None prints them only.
        data: folder of the general texts; None leaves general damage out.
        general: texts of each kind; `ALL_TEXTS`, or None for the defaults.
        json: print one object.
    """

    facts: int
    controls: int
    seed: int
    model: str
    device: str
    threads: int | None
    policy: Policy
    teachers: tuple[str, ...]
    out: Path | None
    data: Path | None
    general: int | None
    json: bool


def run_continual_suite(options: ContinualOptions) -> None:
    """Teaches, measures, prints, and writes the results.

    Raises:
        typer.BadParameter: a teacher is unknown, texts are missing, or the folder is of a run
            with other settings.
    """
    from agent.learner.environment import make_deterministic
    from agent.models.loading import load
    from eval.provenance import provenance
    from eval.suites.continual.results import short_json
    from eval.suites.continual.run import Task

    started = time.monotonic()
    _check(options)
    limits = _limits(options)
    fetch_if_missing(options.model)
    make_deterministic(options.threads)
    with messages.status(shown(f"loading {options.model}")):
        loaded = load(options.model, device=options.device)
    general = _general_texts(options, limits, loaded)
    task = Task.of(options.facts, options.controls, options.seed, general)
    settings, origin = _settings(options, limits), provenance(loaded)
    with claimed(options.out, {**settings, **origin}):
        summaries = _run_teachers(options, task, loaded)
        # Of an interrupted run, the time since it went on: each fact carries its own.
        origin["wall_seconds"] = round(time.monotonic() - started, 1)
        origin["date"] = datetime.now(UTC).isoformat(timespec="seconds")
        if options.out is not None:
            _write(options.out, settings, origin, task, summaries)
    if options.json:
        print_json(short_json({**settings, **origin}, summaries))
    else:
        _print(summaries)


def _check(options: ContinualOptions) -> None:
    """Finds what is wrong before a model is fetched and loaded."""
    from eval.reports.plots import require_matplotlib
    from eval.suites.continual.general_texts import missing_files

    require_teachers(options)
    if options.data is not None and (missing := missing_files(options.data)):
        raise typer.BadParameter(f"{options.data} lacks {', '.join(missing)}", param_hint="--data")
    if options.out is not None:
        require_matplotlib()


def require_teachers(options: ContinualOptions) -> None:
    """All teachers are known.

    Raises:
        typer.BadParameter: one is not.
    """
    from eval.teachers.registry import TEACHERS

    for name in options.teachers:
        if name not in TEACHERS:
            raise typer.BadParameter(
                f"unknown teacher '{name}': use some of {', '.join(TEACHERS)}, joined by commas",
                param_hint="--teachers",
            )


def _limits(options: ContinualOptions) -> dict[str, int] | None:
    """How many texts of each file; None for all."""
    from eval.suites.continual.general_texts import DEFAULT_LIMITS

    if options.general == ALL_TEXTS:
        return None
    return dict.fromkeys(DEFAULT_LIMITS, options.general) if options.general else DEFAULT_LIMITS


def _general_texts(
    options: ContinualOptions, limits: dict[str, int] | None, loaded: LoadedModel
) -> GeneralTexts | None:
    from eval.suites.continual.general_texts import FILES, read_general_texts

    if options.data is None:
        messages.print(
            f"General damage is left out: give a folder with {', '.join(FILES)} by --data or"
            " AGENT_EVAL_DATA (docs/how-to/evaluate.md tells where to get them).",
            soft_wrap=True,
        )
        return None
    try:
        return read_general_texts(options.data, loaded.tokenizer, loaded.max_tokens, limits)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error


def _settings(options: ContinualOptions, limits: dict[str, int] | None) -> dict[str, Any]:
    """What the results depend on, beside code and environment."""
    from agent.models.durable_files import sha256_of
    from eval.suites.continual.general_texts import FILES

    general = None
    if options.data is not None:
        general = {
            "texts": limits or "all",
            "sha256": {name: sha256_of(options.data / name) for name in FILES},
        }
    return {
        "suite": "continual",
        "facts": options.facts,
        "controls": options.controls,
        "seed": options.seed,
        "teachers": list(options.teachers),
        "policy": asdict(options.policy),
        "general": general,
    }


@contextmanager
def claimed(out: Path | None, settings: dict[str, Any]) -> Iterator[None]:
    """The folder is one of these settings, and nobody else writes to it."""
    from eval.run_folder import require_same_settings

    if out is None:
        yield
        return
    try:
        require_same_settings(out, settings)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--out") from error
    try:
        lock = FileLock(out / "lock", timeout=0).acquire()
    except Timeout as error:
        message = f"another run is using {out}: wait for it, or give another folder"
        raise ConfigError(message) from error
    with lock:
        yield


def _write(
    out: Path,
    settings: dict[str, Any],
    origin: dict[str, Any],
    task: Task,
    summaries: Sequence[Summary],
) -> None:
    from eval.suites.continual.report import write_report

    try:
        write_report(out, settings, origin, task, summaries)
    except OSError as error:
        raise DiskFullError(
            f"cannot write the report to {out} ({error.strerror}): make room and run the same"
            " command again; nothing is measured twice"
        ) from error


def _run_teachers(options: ContinualOptions, task: Task, loaded: LoadedModel) -> list[Summary]:
    """One teacher after the other, each from the base model."""
    from eval.run_folder import Journal
    from eval.suites.continual.run import run_continual
    from eval.suites.continual.summary import summarise

    models = fresh_models(loaded, options)
    summaries = []
    try:
        with _shown_progress() as progress:
            for name in options.teachers:
                history = run_continual(
                    partial(make, name, models, options.policy),
                    task,
                    Journal(options.out and options.out / f"{name}.jsonl"),
                    progress,
                    options.out and options.out / f"{name}-state",
                )
                summaries.append(summarise(name, task, history))
    except KeyboardInterrupt:
        kept = f"the same command goes on from {options.out}" if options.out else "nothing is kept"
        messages.print(shown(f"interrupted: {kept}"), style="yellow", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    return summaries


def fresh_models(loaded: LoadedModel, options: ContinualOptions) -> Iterator[LoadedModel]:
    """A model for each teacher: the one that is loaded, then fresh ones."""
    from agent.models.loading import load

    yield loaded
    while True:
        yield load(options.model, device=options.device)


def make(name: str, models: Iterator[LoadedModel], policy: Policy) -> ScoringTeacher:
    """A teacher with a model of its own."""
    from eval.teachers.registry import make_teacher

    return make_teacher(name, next(models), **({"policy": policy} if name in BY_POLICY else {}))


@contextmanager
def _shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each thing that is done."""
    with progress_bar() as bars:
        started: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in started:
                started[what] = bars.add_task(what, total=total)
            bars.update(started[what], completed=done, visible=done < total)

        yield progress


def _print(summaries: Sequence[Summary]) -> None:
    from eval.suites.continual.tables import comparison, course, retention

    tables = [comparison(summaries)]
    for summary in summaries:
        tables += [course(summary), retention(summary)]
    for table in tables:
        drawn = Table(title=table.title)
        for name in table.header:
            drawn.add_column(name, overflow="fold")  # many teachers: narrow, but nothing cut off
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)
