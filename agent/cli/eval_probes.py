"""`agent eval --suite probes`."""

from __future__ import annotations

from rich.table import Table

from agent.cli.connection import Connection
from agent.cli.output import console, print_json, progress_bar, shown


def run_probes(connection: Connection, json: bool) -> None:
    """Asks a server about every fact that it holds, and prints the result."""
    from eval.suites.probes import probe_server

    with connection.client() as client, progress_bar() as progress:
        task = progress.add_task("probing", total=None)
        report = probe_server(
            client, lambda done, total: progress.update(task, completed=done, total=total)
        )
    if json:
        print_json(report.as_json())
        return
    table = Table("probe", "right", "of", "rate", "95% interval", "mean probability")
    for name, rate in report.rates.items():
        table.add_row(
            name,
            str(rate.correct),
            str(rate.total),
            f"{rate.rate:.1%}" if rate.total else "-",
            f"{rate.low:.1%} to {rate.high:.1%}" if rate.total else "-",
            f"{rate.mean_probability:.3f}" if rate.total else "-",
        )
    console.print(table)
    for probe in report.missed:
        console.print(
            shown(f"missed: {probe.question} -> {probe.answer!r}, not {probe.expected_answer!r}")
        )
