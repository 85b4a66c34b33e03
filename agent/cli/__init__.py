"""The command line `agent`, with a module for each group of commands."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Annotated

# gRPC reads both when it is imported. It would print what its calls raise anyway, outside our logs.
# And we start other programs, so nothing has to survive a fork.
if "--debug" not in sys.argv:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import typer

from agent.cli import (
    ask,
    bench,
    doctor,
    evaluate,
    facts,
    health,
    models,
    monitor,
    operations,
    pause,
    report,
    serve,
    snapshots,
    teach,
    tokens,
    why,
)
from agent.cli.exit_codes import EXIT_CODES, CommandLine
from agent.cli.settings_file import Command, read_settings, unknown_variables

app = typer.Typer(
    name="agent",
    cls=CommandLine,
    help="Teach a language model facts, one at a time; it remembers them in its weights.",
    epilog="Settings come from flags, AGENT_* variables, or a TOML file, in that order."
    + " Exit codes: "
    + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
    + ".",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.serve)
app.command()(teach.teach)
app.command()(ask.ask)
app.command()(ask.score)
app.command()(ask.status)
app.command()(health.health)
app.command()(bench.bench)
app.command()(monitor.monitor)
app.command()(operations.rollback)
app.command()(pause.pause)
app.command()(pause.resume)
app.command()(why.why)
app.command()(report.report)
app.command()(snapshots.export)
app.command()(snapshots.backup)
app.command()(snapshots.compact)
app.command()(doctor.doctor)
app.add_typer(evaluate.app, name="eval")
app.add_typer(facts.app, name="facts")
app.add_typer(operations.operations, name="operations")
app.add_typer(snapshots.snapshots, name="snapshots")
app.add_typer(models.app, name="models")
app.add_typer(tokens.app, name="tokens")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"continual-agent {importlib.metadata.version('continual-agent')}")
        raise typer.Exit


@app.callback()
def settings(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENT_CONFIG",
            help="Read settings from this TOML file: 'server' for all commands, a table for each.",
            show_default="config.toml in the user's configuration folder, if there is one",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="AGENT_DEBUG", help="Print the traceback of an error.")
    ] = False,
) -> None:
    """Reads the settings file into the defaults of every command."""
    ctx.default_map = read_settings(config, Command.of(ctx.command))
    # `agent serve` reports these in its log.
    ctx.obj = unknown_variables(ctx.command, os.environ)


def main() -> None:
    """Runs the command line; see `agent.cli.exit_codes` for how it ends."""
    app()
