"""`agent eval --suite zsre` and `--suite counterfact`: the field's data sets, from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.eval_options import ModelOptions, TeachingOptions, bars, distinct, wrong_usage
from agent.cli.output import console, messages, print_json
from memory_store.vocabulary import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class EditingOptions:
    """The option that only these suites have."""

    edits: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Teach the edits of this file of JSON lines (zsre, counterfact).",
            show_default=False,
        ),
    ] = None


def run_editing_suite(
    suite: str,
    options: EditingOptions,
    teaching: TeachingOptions,
    policy: Policy,
    model: ModelOptions,
    out: Path | None,
    json: bool,
) -> None:
    """Teaches the first edits of a file one by one in each way, and prints the field's metrics.

    Raises:
        typer.BadParameter: no file is given, it is malformed, a teacher is unknown, or the folder
            has results.
    """
    from eval.suites.editing.suite import EditingRequest, run_suite

    request = EditingRequest(
        suite=suite,
        edits=options.edits,
        facts=teaching.facts,
        teachers=distinct(teaching.teachers),
        policy=policy,
    )
    with wrong_usage():
        edits = request.read(out)
    if edits.repeated or edits.without_question:
        messages.print(
            f"Left out: {edits.repeated} repeated, {edits.without_question} without a question."
        )
    models = model.load()
    with bars() as progress:
        results, table = run_suite(request, edits, models, progress, out)
    if json:
        print_json(results)
    else:
        console.print(table, markup=False, highlight=False, soft_wrap=True)
