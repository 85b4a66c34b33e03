"""The files of a finished run of the suite `paper`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.reports import html, markdown
from eval.reports.html import Part, Section, provenance_table
from eval.reports.plots import ThemedPicture
from eval.suites.paper.figures import figures
from eval.suites.paper.findings import findings
from eval.suites.paper.registry import EXPERIMENTS
from eval.suites.paper.results import SAMPLING, results_json
from eval.suites.paper.summary import RunSummary
from eval.suites.paper.tables import by_model, tables


def write_paper_report(out: Path, run: RunSummary, provenance: Mapping[str, Any]) -> None:
    """Writes or replaces `results.json`, `report.md`, `report.html` and the pictures.

    Args:
        out: the folder; must exist.
        run: the results.
        provenance: code, environment, date and time taken.

    Raises:
        ConfigError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    parts = _parts(run, provenance)
    for part in parts:
        if isinstance(part, ThemedPicture):
            (out / f"{part.name}.png").write_bytes(part.png)
            (out / f"{part.name}.svg").write_bytes(part.svg)
    _write_pages(out, f"The paper's experiments, replayed with {run.model}", _lead(run), parts)
    # Last, because its presence means that the run is finished.
    text = json.dumps(results_json(run, provenance), allow_nan=False, ensure_ascii=False)
    (out / "results.json").write_text(text + "\n", encoding="utf-8")


def _lead(run: RunSummary) -> Sequence[str]:
    request = run.request
    which = "what the author's scripts do" if request.protocol == "code" else "the paper's text"
    return (
        f"Protocol “{request.protocol}” ({which}), {request.scale_text}, seed {request.seed}."
        f" Answers are {SAMPLING}.",
        "The paper: Curt (2024), Memory Retention, Learning Rates, and Rare Memory Injection in"
        " LLMs.",
        *run.notes,
    )


def _parts(run: RunSummary, provenance: Mapping[str, Any]) -> list[Part]:
    sentences = findings(run)
    parts: list[Part] = []
    for number in run.request.experiments:
        title = f"Experiment {number}: {EXPERIMENTS[number].title}"
        parts.append(Section(title, tuple(sentences[number])))
        for fact_set in run.request.fact_sets:
            parts += figures(run, number, fact_set)
            parts += tables(run, number, fact_set)
    return [*parts, provenance_table(provenance)]


def write_overview(out: Path, runs: Mapping[str, RunSummary]) -> None:
    """Writes `report.html` and `report.md` over several models.

    Args:
        out: the folder.
        runs: by the name of the folder with the model's own report.

    Raises:
        OSError: the folder cannot be written.
    """
    first = next(iter(runs.values()))
    title = f"The paper's experiments, replayed with {len(runs)} models"
    lead = (
        *_lead(first)[:2],
        f"Each model's own report is in a folder of its name: {', '.join(runs)}.",
    )
    _write_pages(out, title, lead, [by_model(list(runs.values()))])


def _write_pages(out: Path, title: str, lead: Sequence[str], parts: Sequence[Part]) -> None:
    for name, document in (("report.html", html.document), ("report.md", markdown.document)):
        (out / name).write_text(document(title, lead, parts), encoding="utf-8")
