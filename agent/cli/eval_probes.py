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
    for name, answers in report.answers.items():
        right, probability = answers.correct, answers.mean_probability
        low, high = right.interval
        table.add_row(
            name,
            str(right.count),
            str(right.total),
            "-" if right.rate is None else f"{right.rate:.1%}",
            f"{low:.1%} to {high:.1%}" if right.total else "-",
            "-" if probability is None else f"{probability:.3f}",
        )
    console.print(table)
    for probe in report.missed:
        console.print(
            shown(f"missed: {probe.question} -> {probe.answer!r}, not {probe.expected_answer!r}")
        )
