"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.output import json_state


def _noted(json: bool) -> bool:
    json_state.asked = json
    return json


Json = Annotated[
    bool,
    # Eager: what is wrong with the other options is an object too.
    typer.Option(
        "--json", callback=_noted, is_eager=True, help="Print one JSON object, also for an error."
    ),
]
