"""Writes the files of a finished run of the suite `paper`."""

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
from eval.suites.paper.summary import Replay
from eval.suites.paper.tables import by_model, tables


def write_paper_report(out: Path, replay: Replay, provenance: Mapping[str, Any]) -> None:
    """Writes or replaces `results.json`, `report.md`, `report.html` and the pictures.

    Args:
        out: the folder; must exist.
        replay: what was found.
        provenance: code, environment, date and time taken.

    Raises:
        ConfigError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    parts = _parts(replay, provenance)
    for part in parts:
        if isinstance(part, ThemedPicture):
            (out / f"{part.name}.png").write_bytes(part.png)
            (out / f"{part.name}.svg").write_bytes(part.svg)
    title = f"The paper's experiments, replayed with {replay.model}"
    lead = _lead(replay)
    (out / "report.html").write_text(html.document(title, lead, parts), encoding="utf-8")
    (out / "report.md").write_text(markdown.document(title, lead, parts), encoding="utf-8")
    # Last: who finds it knows that the run is finished.
    text = json.dumps(results_json(replay, provenance), allow_nan=False, ensure_ascii=False)
    (out / "results.json").write_text(text + "\n", encoding="utf-8")


def _lead(replay: Replay) -> Sequence[str]:
    request = replay.request
    which = "what the author's scripts do" if request.protocol == "code" else "the paper's text"
    return (
        f"Protocol “{request.protocol}” ({which}), {request.scale_told}, seed {request.seed}."
        f" Answers are {SAMPLING}.",
        "The paper: Curt (2024), Memory Retention, Learning Rates, and Rare Memory Injection in"
        " LLMs.",
        *replay.notes,
    )


def _parts(replay: Replay, provenance: Mapping[str, Any]) -> list[Part]:
    told = findings(replay)
    parts: list[Part] = []
    for number in replay.request.experiments:
        title = f"Experiment {number}: {EXPERIMENTS[number].title}"
        parts.append(Section(title, tuple(told[number])))
        for fact_set in replay.request.fact_sets:
            parts += figures(replay, number, fact_set)
            parts += tables(replay, number, fact_set)
    return [*parts, provenance_table(provenance)]


def write_overview(out: Path, replays: Mapping[str, Replay]) -> None:
    """Writes `report.html` and `report.md` over several models.

    Args:
        out: the folder.
        replays: by the name of the folder in it that has the model's own report.

    Raises:
        OSError: the folder cannot be written.
    """
    first = next(iter(replays.values()))
    title = f"The paper's experiments, replayed with {len(replays)} models"
    lead = (
        *_lead(first)[:2],
        f"Each model's own report is in a folder of its name: {', '.join(replays)}.",
    )
    parts = (by_model(list(replays.values())),)
    (out / "report.html").write_text(html.document(title, lead, parts), encoding="utf-8")
    (out / "report.md").write_text(markdown.document(title, lead, parts), encoding="utf-8")
