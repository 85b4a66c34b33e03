"""`agent eval --suite zsre` and `--suite counterfact`: the field's data sets, from a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from agent.cli.eval_continual import ContinualOptions, fresh_models, make, require_teachers
from agent.cli.model_fetch import fetch_if_missing
from agent.cli.output import console, messages, print_json, progress_bar, shown

RESULTS, TABLE = "results.json", "results.md"


def run_editing_suite(suite: str, edits: Path | None, options: ContinualOptions) -> None:
    """Teaches the first edits of a file one by one in each way, and prints the field's metrics.

    Raises:
        typer.BadParameter: no file is given, it is malformed, a teacher is unknown, or the folder
            of the results is in use.
    """
    require_teachers(options)
    if edits is None:
        raise typer.BadParameter(f"the suite {suite} needs a file of edits", param_hint="--edits")
    if options.out is not None and (options.out / RESULTS).exists():
        raise typer.BadParameter(
            f"{options.out} has results already: name another folder", param_hint="--out"
        )
    rows, run, table = _suite(suite, edits, options.facts)
    result, text = _run(suite, rows, run, table, options)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / RESULTS).write_text(json.dumps(result, indent=1), encoding="utf-8")
        (options.out / TABLE).write_text(text + "\n", encoding="utf-8")
    if options.json:
        print_json(result)
    else:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _suite(
    suite: str, edits: Path, facts: int
) -> tuple[Any, Callable[..., Any], Callable[..., str]]:
    """Its rows, what runs it, and what draws its table."""
    from agent.errors import ConfigError
    from eval.suites.editing.counterfact import counterfact_table, run_counterfact
    from eval.suites.editing.edit_files import read_counterfact, read_zsre
    from eval.suites.editing.zsre import run_zsre, zsre_table

    try:
        if suite == "zsre":
            return read_zsre(edits, facts), run_zsre, zsre_table
        return read_counterfact(edits, facts), run_counterfact, counterfact_table
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--edits") from error


def _run(
    suite: str,
    edits: Any,
    run: Callable[..., Any],
    table: Callable[..., str],
    options: ContinualOptions,
) -> tuple[dict[str, Any], str]:
    from agent.learner.environment import make_deterministic
    from agent.models.loading import load
    from eval.provenance import provenance

    if edits.repeated or edits.without_question:
        messages.print(
            f"Left out: {edits.repeated} repeated, {edits.without_question} without a question."
        )
    fetch_if_missing(options.model)
    make_deterministic(options.threads)
    with messages.status(shown(f"loading {options.model}")):
        loaded = load(options.model, device=options.device)
    origin = provenance(loaded)
    models = fresh_models(loaded, options)
    reports = []
    with progress_bar() as progress:
        for name in options.teachers:
            task = progress.add_task(f"{name}: teaching", total=len(edits.rows))
            reports.append(
                run(
                    make(name, models, options.policy),
                    edits.rows,
                    lambda done, total, task=task: progress.update(
                        task, completed=done, total=total
                    ),
                )
            )
    result = {
        "suite": suite,
        "facts": len(edits.rows),
        "repeated": edits.repeated,
        "without_question": edits.without_question,
        "policy": asdict(options.policy),
        **origin,
        "teachers": [report.as_json() for report in reports],
    }
    return result, table(reports)
