"""The command line: `agent`. One module for each group of commands."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import platformdirs
import typer

from agent.cli import ask, bench, evaluate, facts, models, operate, serve, teach
from agent.cli.output import messages, shown
from agent.errors import AgentError, ConfigError
from memory_store.errors import MemoryStoreError

app = typer.Typer(
    name="agent",
    help="Teach a language model facts, one at a time; it remembers them in its weights.",
    epilog="Settings come from flags, AGENT_* variables, or a TOML file, in that order.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.serve)
app.command()(teach.teach)
app.command()(ask.ask)
app.command()(ask.score)
app.command()(ask.status)
app.command("eval")(evaluate.evaluate)
app.command()(bench.bench)
app.command()(operate.rollback)
app.command()(operate.why)
app.command()(operate.export)
app.command()(operate.backup)
app.add_typer(facts.app, name="facts")
app.add_typer(operate.snapshots, name="snapshots")
app.add_typer(models.app, name="models")

# Exit codes: 0 done, 1 it went wrong, 2 wrong usage, 130 interrupted.
FAILED, INTERRUPTED = 1, 130
COMMANDS = ("serve", "teach", "ask", "score", "status", "eval")
GROUPS = ("facts", "models")


@app.callback()
def settings(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENT_CONFIG",
            help="TOML file with settings: 'server' for all commands, a table for each command.",
            show_default="config.toml in the user's configuration folder, if there is one",
        ),
    ] = None,
) -> None:
    """Reads the settings file into the defaults of every command."""
    ctx.default_map = read_settings(config)


def read_settings(path: Path | None) -> dict[str, Any]:
    """The defaults by command, as click wants them.

    Raises:
        ConfigError: the file is named but missing, is not valid TOML, or has no table where it
            should.
    """
    if path is None:
        path = platformdirs.user_config_path("continual-agent") / "config.toml"
        if not path.exists():
            return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings {path} are not valid TOML: {error}") from error
    everywhere = {key: value for key, value in content.items() if not isinstance(value, dict)}
    for name in (*COMMANDS, *GROUPS):
        if name in everywhere:
            raise ConfigError(f"the settings {path} are not usable: '{name}' must be a table")
    defaults: dict[str, Any] = {}
    for command in COMMANDS:
        defaults[command] = {**everywhere, **content.get(command, {})}
    for group in GROUPS:
        defaults[group] = {
            name: {**everywhere, **content.get(group, {})} for name in ("list", "show", "pull")
        }
    # TOML has underscores or dashes; click's parameters have underscores.
    return _underscored(defaults)


def _underscored(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key.replace("-", "_"): _underscored(value) if isinstance(value, dict) else value
        for key, value in table.items()
    }


def main() -> None:
    """Runs the command line; our errors become one line and an exit code."""
    try:
        app()
    except (AgentError, MemoryStoreError) as error:
        messages.print(shown(f"error: {error}"), style="red", soft_wrap=True)
        sys.exit(FAILED)
    except BrokenPipeError:
        # The reader left (as in `agent facts list | head`): nothing more to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
