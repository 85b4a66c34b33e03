"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.config import DEFAULT_ADDRESS

Server = Annotated[
    str,
    typer.Option("--server", envvar="AGENT_SERVER", metavar="ADDRESS", help="The server to ask."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

__all__ = ["DEFAULT_ADDRESS", "Json", "Server"]
