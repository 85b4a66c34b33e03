"""Writes the files of a finished run: JSON, Markdown, pictures, one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.reports.html import page
from eval.reports.markdown import markdown
from eval.suites.continual.pictures import pictures
from eval.suites.continual.results import full_json
from eval.suites.continual.run import Task
from eval.suites.continual.summary import Summary
from eval.suites.continual.tables import comparison, course, missed, retention


def write_report(
    out: Path,
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    task: Task,
    summaries: Sequence[Summary],
) -> None:
    """Writes or replaces `results.json`, `results.md`, `report.html` and the pictures.

    Args:
        out: the folder; must exist.
        settings: what was asked for.
        provenance: code, environment, date and time taken.
        task: what was taught and asked.
        summaries: one for each teacher.

    Raises:
        ConfigError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    results = full_json(settings, provenance, task, summaries)
    origin = {**provenance, **settings}
    compared = comparison(summaries)
    drawn = pictures(summaries)
    tables = [compared]
    questions = [fact.question for fact in task.facts]
    answers = [fact.answer for fact in task.facts]
    for summary in summaries:
        tables += [course(summary), retention(summary), missed(summary, questions, answers)]
    title = f"{len(task.facts)} facts, taught one by one to {provenance['model']}"
    for picture in drawn:
        (out / picture.name).write_bytes(picture.png)
    _write(out / "results.json", json.dumps(results, allow_nan=False, ensure_ascii=False) + "\n")
    _write(out / "results.md", markdown(compared, origin))
    _write(out / "report.html", page(title, tables, drawn, origin))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
