"""`agent doctor`: whether a server can run here, and what to do if not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import console, messages, print_json, shown
from agent.cli.security import SecurityOptions
from agent.config import DEFAULT_ADDRESS, DEFAULT_METRICS_HOST, DEFAULT_MODEL

STYLES = {"good": "green", "warning": "yellow", "bad": "red"}


@grouped
def doctor(
    data: Annotated[
        Path, typer.Option(envvar="AGENT_DATA", help="Check this folder of the memory.")
    ] = Path("agent-data"),
    listen: Annotated[
        str,
        typer.Option(
            envvar="AGENT_LISTEN", help="Check whether a server can listen on this HOST:PORT."
        ),
    ] = DEFAULT_ADDRESS,
    model: Annotated[
        str, typer.Option(envvar="AGENT_MODEL", help="Check whether this model can be served.")
    ] = DEFAULT_MODEL,
    device: Annotated[
        str, typer.Option(envvar="AGENT_DEVICE", help="Check this device: auto, cpu or cuda.")
    ] = "auto",
    metrics_port: Annotated[
        int | None,
        typer.Option(
            envvar="AGENT_METRICS_PORT",
            min=0,
            max=65535,
            help="Check whether metrics can be served on this port.",
            show_default="none are served",
        ),
    ] = None,
    metrics_host: Annotated[
        str,
        typer.Option(
            envvar="AGENT_METRICS_HOST", help="Check whether metrics can be served on this address."
        ),
    ] = DEFAULT_METRICS_HOST,
    allow_network_filesystem: Annotated[
        bool,
        typer.Option(
            "--allow-network-filesystem",
            envvar="AGENT_ALLOW_NETWORK_FILESYSTEM",
            help="Accept a data folder on a network file system, with a warning.",
        ),
    ] = False,
    *,
    security: SecurityOptions,
    json: Json = False,
) -> None:
    """Check whether 'agent serve' can run here as it is set up; exit code 1 if it cannot."""
    from agent.doctor.examination import ServerPlan, examine  # imports the store
    from agent.doctor.findings import State

    plan = ServerPlan(
        data=data,
        listen=listen,
        model=model,
        device=device,
        security=security.chosen(),
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        allow_network_filesystem=allow_network_filesystem,
    )
    with messages.status("looking"):
        findings = list(examine(plan))
    bad = any(finding.state is State.BAD for finding in findings)
    if json:
        checks = [dataclasses.asdict(finding) for finding in findings]
        print_json({"healthy": not bad, "checks": checks})
    else:
        table = Table("check", "state", "found", "what to do")
        for finding in findings:
            state = Text(finding.state.value, style=STYLES[finding.state])
            table.add_row(finding.check, state, shown(finding.found), shown(finding.remedy))
        console.print(table)
    if bad:
        raise typer.Exit(1)
