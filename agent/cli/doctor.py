"""`agent doctor`: checks whether a server can run here, and what to do if not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import console, messages, print_json, shown
from agent.cli.security import SecurityOptions
from agent.cli.serve_options import MetricsOptions, ServerOptions
from agent.config import Observability, ServeSettings

if TYPE_CHECKING:
    from agent.doctor.findings import Finding

STYLES = {"good": "green", "warning": "yellow", "bad": "red"}


@grouped
def doctor(
    *, server: ServerOptions, metrics: MetricsOptions, security: SecurityOptions, json: Json = False
) -> None:
    """Check whether 'agent serve' can run here with these options; exit code 1 if it cannot."""
    from agent.doctor.examination import examine  # imports the store
    from agent.doctor.findings import State

    settings = ServeSettings(
        **dataclasses.asdict(server),
        security=security.chosen(),
        observability=Observability(**dataclasses.asdict(metrics)),
    )
    with messages.status("looking"):
        findings = list(examine(settings))
    bad = any(finding.state is State.BAD for finding in findings)
    if json:
        print_json({"healthy": not bad, "checks": findings})
    else:
        console.print(_table(findings))
    if bad:
        raise typer.Exit(1)


def _table(findings: Iterable[Finding]) -> Table:
    table = Table("check", "state", "found", "what to do")
    for finding in findings:
        state = Text(finding.state.value, style=STYLES[finding.state])
        table.add_row(finding.check, state, shown(finding.found), shown(finding.remedy))
    return table
