"""The reference of the command line, and that of the settings, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from agent.cli import app
from agent.cli.exit_codes import EXIT_CODES
from scripts.docs.markdown import code, table

PROGRAM = "agent"


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its words, groups too, in the order of `--help`."""

    def walk(command: Any, words: str) -> Iterator[tuple[str, Any]]:
        yield words, command
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{words} {name}")

    yield from walk(typer.main.get_command(app), PROGRAM)


def cli_page() -> str:
    """Markdown: usage, arguments and options of each command."""
    parts = [
        "# Command line",
        "Made from the code. `agent COMMAND --help` tells the same; `agent --install-completion`"
        " teaches your shell to complete commands and options.",
        "## Exit codes",
        table(["code", "meaning"], [[str(c), meaning] for c, meaning in EXIT_CODES.items()]),
        "An error is one line on standard error that says what to do. `--json` puts one object with"
        " stable fields on standard output, and nothing else.",
    ]
    for words, command in commands():
        parts += [f"## {words}", " ".join((command.help or "").split())]
        if words == PROGRAM or getattr(command, "invoke_without_command", True):
            parts += ["\n".join(["```text", _usage(words, command), "```"])]
        rows = [_row(parameter) for parameter in _shown(command)]
        if rows:
            parts.append(table(["", "default", "meaning"], rows))
    return "\n\n".join(parts) + "\n"


def settings_page() -> str:
    """Markdown: each setting with its flag, variable and key."""
    parts = [
        "# Settings",
        "Made from the code. A flag wins over a variable, a variable over the settings file, the"
        " file over the default. The file is named by `--config` or `AGENT_CONFIG`; without these"
        " it is `continual-agent/config.toml` in the user's configuration folder"
        " (`~/.config` on Linux):",
        "A key that is unknown, given twice or of the wrong type is refused, and so is a variable"
        " that is almost one of these. Other variables that begin with `AGENT_` are ignored;"
        " `agent serve` names them in its log.",
        '```toml\nserver = "127.0.0.1:50051" # for all commands\n\n'
        '[serve] # for one command\nmodel = "smollm2-135m"\nsnapshot_seconds = 60\n```',
    ]
    for words, command in commands():
        rows = [
            [
                code(parameter.name),
                code(_variable(parameter)),
                _default(parameter),
                _help(parameter),
            ]
            for parameter in _shown(command)
            if _variable(parameter) and (words in (PROGRAM, f"{PROGRAM} serve") or _own(words))
        ]
        if rows:
            title = "for all commands" if words == PROGRAM else words.removeprefix(f"{PROGRAM} ")
            parts += [f"## {title}", table(["key", "variable", "default", "meaning"], rows)]
    return "\n\n".join(parts) + "\n"


def _own(words: str) -> bool:
    """Whether a command's settings are told: those of `ask` stand for all that ask a server."""
    return words in (f"{PROGRAM} ask", f"{PROGRAM} eval")


def _shown(command: Any) -> list[Any]:
    return [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]


def _usage(words: str, command: Any) -> str:
    arguments = [
        p.name.upper() if p.required else f"[{p.name.upper()}]"
        for p in _shown(command)
        if p.param_type_name == "argument"
    ]
    inner = ["COMMAND"] if hasattr(command, "commands") else []
    return " ".join([words, "[OPTIONS]", *arguments, *inner])


def _row(parameter: Any) -> list[str]:
    if parameter.param_type_name == "argument":
        names = code(parameter.name.upper())
    else:
        names = ", ".join(map(code, parameter.opts))
    meaning = _help(parameter)
    if variable := _variable(parameter):
        meaning += f" ({code(variable)})"
    return [names, _default(parameter), meaning]


def _variable(parameter: Any) -> str:
    found = parameter.envvar
    return found if isinstance(found, str) else ", ".join(found or ())


def _help(parameter: Any) -> str:
    return " ".join((parameter.help or "").split())


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    told = getattr(parameter, "show_default", None)
    if isinstance(told, str):
        return told
    if parameter.default in (None, False, "", ()) or callable(parameter.default):
        return ""
    return code(str(parameter.default))
