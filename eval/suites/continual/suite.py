"""Suite `continual` from request to report: all teachers, one after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.durable_files import sha256_of
from eval.base_models import BaseModels
from eval.errors import RequestError
from eval.provenance import provenance
from eval.reports.plots import require_matplotlib
from eval.run_folder import Journal, claimed, interruptible, report_files
from eval.suites.continual.general_texts import (
    FILES,
    missing_files,
    read_general_texts,
    text_limits,
)
from eval.suites.continual.report import write_report
from eval.suites.continual.run import Progress, Task, run_continual
from eval.suites.continual.summary import Summary, summarize
from eval.teachers.registry import require_known, teacher_with_policy
from memory_store.vocabulary import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinualRequest:
    """What is taught and measured.

    Attributes:
        facts: how many are taught.
        controls: how many control questions are asked.
        seed: of the facts and controls.
        teachers: names of `eval.teachers.registry.TEACHERS`.
        policy: of the teachers that follow one.
        data: folder of the general texts; None leaves general damage out.
        general: texts of each kind; see `text_limits`.
    """

    facts: int
    controls: int
    seed: int
    teachers: tuple[str, ...]
    policy: Policy
    data: Path | None = None
    general: str | None = None

    def check(self, out: Path | None) -> None:
        """Finds in a second what would fail after a model is loaded, or after hours.

        Args:
            out: folder of the results.

        Raises:
            RequestError: a teacher is unknown, or texts are missing.
            ConfigError: results are to be drawn, and matplotlib is not installed.
        """
        require_known(self.teachers)
        text_limits(self.general)
        if self.data is not None and (missing := missing_files(self.data)):
            raise RequestError("data", f"{self.data} lacks {', '.join(missing)}")
        if out is not None:
            require_matplotlib()

    def settings(self) -> dict[str, Any]:
        """What the results depend on, apart from code and environment; as JSON values."""
        general = None
        if self.data is not None:
            general = {
                "texts": text_limits(self.general) or "all",
                "sha256": {name: sha256_of(self.data / name) for name in FILES},
            }
        return {
            "suite": "continual",
            "facts": self.facts,
            "controls": self.controls,
            "seed": self.seed,
            "teachers": list(self.teachers),
            "policy": asdict(self.policy),
            "general": general,
        }


@dataclass(frozen=True, slots=True)
class ContinualResults:
    """A finished run.

    Attributes:
        settings: what was asked for.
        provenance: code, environment, date and time taken.
        summaries: one for each teacher.
    """

    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    summaries: Sequence[Summary]


def run_suite(
    request: ContinualRequest, models: BaseModels, progress: Progress, out: Path | None
) -> ContinualResults:
    """Teaches and measures, or continues an interrupted run; writes the report.

    Args:
        request: what is taught and measured.
        models: a base model for each teacher.
        progress: see `Progress`.
        out: folder of the results; None keeps nothing.

    Raises:
        RequestError: see `ContinualRequest.check`; or texts are damaged, or the folder is of a
            run with other settings.
        ConfigError: another run is using the folder.
        DiskFullError: results cannot be written.
        KeyboardInterrupt: by Ctrl-C; its message says how to continue.
    """
    request.check(out)
    started = time.monotonic()
    general = None
    if request.data is not None:
        general = read_general_texts(
            request.data,
            models.first.tokenizer,
            models.first.max_tokens,
            text_limits(request.general),
        )
    task = Task.of(request.facts, request.controls, request.seed, general)
    settings, origin = request.settings(), provenance(models.first)
    with claimed(out, {**settings, **origin}):
        with interruptible(out):
            summaries = [
                _run_teacher(name, request, models, task, progress, out)
                for name in request.teachers
            ]
        # Of an interrupted run, the time since it went on: each fact carries its own.
        origin["wall_seconds"] = round(time.monotonic() - started, 1)
        origin["date"] = datetime.now(UTC).isoformat(timespec="seconds")
        if out is not None:
            with report_files(out):
                write_report(out, settings, origin, task, summaries)
    return ContinualResults(settings, origin, summaries)


def _run_teacher(
    name: str,
    request: ContinualRequest,
    models: BaseModels,
    task: Task,
    progress: Progress,
    out: Path | None,
) -> Summary:
    history = run_continual(
        lambda: teacher_with_policy(name, models.take(), request.policy),
        task,
        Journal(out and out / f"{name}.jsonl"),
        progress,
        out and out / f"{name}-state",
    )
    return summarize(name, task, history)
