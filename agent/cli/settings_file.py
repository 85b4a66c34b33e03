"""Checks the settings file and the environment variables: no mistake is silently ignored."""

from __future__ import annotations

import difflib
import inspect
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from agent.errors import ConfigError

PREFIX = "AGENT_"
# Read outside the command line: the folder of models, the wheel of the embedded model, the data
# sets of `agent eval`, kernels.
OTHER_VARIABLES = ("AGENT_CACHE", "AGENT_EVAL_DATA", "AGENT_KERNELS", "AGENT_SMOLLM")
# A command that checks another one uses its settings.
SET_UP_AS = {"doctor": "serve"}
# The similarity of a typing mistake; `AGENT_NAME` of a build server is less similar.
ALIKE = 0.85
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command in a settings file.

    Attributes:
        parameter: its name in typer.
        kind: bool, int, float, or str for everything that is written as text.
        is_list: whether it may be repeated.
    """

    parameter: str
    kind: type
    is_list: bool


@dataclass(frozen=True, slots=True)
class Command:
    """The valid content of a table: options, and the tables of subcommands."""

    options: Mapping[str, Option]
    commands: Mapping[str, Command]

    @classmethod
    def of(cls, command: Any) -> Command:
        """Makes it from a command or group of typer."""
        inside: Mapping[str, Any] = getattr(command, "commands", {})
        return cls(
            options=dict(_options(command)),
            commands={name: cls.of(other) for name, other in inside.items()},
        )

    def everywhere(self) -> dict[str, list[Option]]:
        """Returns the options of all subcommands, by name."""
        found: dict[str, list[Option]] = {}
        for command in self.commands.values():
            for name, option in command.options.items():
                found.setdefault(name, []).append(option)
            for name, options in command.everywhere().items():
                found.setdefault(name, []).extend(options)
        return found


def read_settings(path: Path | None, root: Command) -> dict[str, Any]:
    """Reads the defaults of each command, in typer's format.

    Args:
        path: of the file; None for the user's, if there is one.
        root: all commands.

    Raises:
        ConfigError: the file is named but missing, or is not valid TOML; a key is unknown or given
            twice, or its value is of the wrong type.
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
    try:
        return _defaults(content, root)
    except ValueError as error:
        raise ConfigError(f"the settings {path} are not usable: {error}") from error


def _defaults(content: Mapping[str, Any], root: Command) -> dict[str, Any]:
    everywhere = root.everywhere()
    values, tables = _split(content, everywhere, root.commands, "")
    for name, value in values.items():
        for option in everywhere[name]:
            _check(name, value, option)
    return _merged(root.commands, tables, values, "")


def _merged(
    commands: Mapping[str, Command],
    tables: Mapping[str, Mapping[str, Any]],
    inherited: Mapping[str, Any],
    prefix: str,
) -> dict[str, Any]:
    """Merges the defaults of commands: inherited ones, then those of their own table."""
    defaults: dict[str, Any] = {}
    for name, command in commands.items():
        where = f"{prefix}{name}."
        inside = command.everywhere()
        values, own_tables = _split(
            tables.get(name, {}), {**inside, **command.options}, command.commands, where
        )
        for key, value in values.items():
            own = [command.options[key]] if key in command.options else []
            for option in (*own, *inside.get(key, ())):
                _check(where + key, value, option)
        other = tables.get(SET_UP_AS.get(name, ""), {})
        shared = {key.replace("_", "-"): value for key, value in other.items()}
        known = {**inherited, **shared, **values}
        defaults[name] = {
            option.parameter: known[key] for key, option in command.options.items() if key in known
        }
        # A group may have options of its own, as `eval` has.
        defaults[name] |= _merged(command.commands, own_tables, known, where)
    return defaults


def _split(
    content: Mapping[str, Any], options: Iterable[str], commands: Iterable[str], prefix: str
) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
    """Splits a table into values and tables, by the names of options and commands.

    Raises:
        ValueError: a key is unknown, is given twice, or has a table where it should not.
    """
    values: dict[str, Any] = {}
    tables: dict[str, Mapping[str, Any]] = {}
    options, commands = list(options), list(commands)
    for key, value in content.items():
        # TOML has underscores or dashes; options have dashes.
        name = key.replace("_", "-")
        if name in commands and isinstance(value, dict):
            tables[name] = value
        elif name in commands and name not in options:
            raise ValueError(f"'{prefix}{key}' must be a table")
        elif name not in options:
            raise ValueError(f"unknown key '{prefix}{key}'{_nearest(name, [*options, *commands])}")
        elif isinstance(value, dict):
            raise ValueError(f"'{prefix}{key}' must not be a table")
        elif name in values:
            raise ValueError(f"'{prefix}{name}' is given twice, with a dash and with an underscore")
        else:
            values[name] = value
    return values, tables


def _check(name: str, value: Any, option: Option) -> None:
    """Raises ValueError if a value is of the wrong type."""
    given = value if option.is_list and isinstance(value, list) else [value]
    for item in given:
        # In Python, a bool is an int.
        accepted = (int, float) if option.kind is float else (option.kind,)
        if not isinstance(item, accepted) or isinstance(item, bool) != (option.kind is bool):
            many = ", or a list of them" if option.is_list else ""
            raise ValueError(f"'{name}' must be {KINDS[option.kind]}{many}")


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f": did you mean '{found[0]}'?" if found else ""


def _options(command: Any) -> Iterator[tuple[str, Option]]:
    annotations = {}
    if command.callback is not None:
        signature = inspect.signature(command.callback, eval_str=True)
        annotations = {name: p.annotation for name, p in signature.parameters.items()}
    for parameter in command.params:
        annotation = annotations.get(parameter.name)
        if annotation is None or parameter.param_type_name != "option":
            continue
        for flag in parameter.opts:
            if flag.startswith("--"):
                yield flag[2:], Option(parameter.name, *_kind(annotation))


def _kind(annotation: Any) -> tuple[type, bool]:
    """Returns the type of a value, and whether it may be repeated."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        [annotation] = [arg for arg in typing.get_args(annotation) if arg is not types.NoneType]
    if typing.get_origin(annotation) is list:
        [item] = typing.get_args(annotation)
        return _kind(item)[0], True
    return (annotation if annotation in KINDS else str), False


def unknown_variables(root: Any, environment: Iterable[str]) -> list[str]:
    """Returns variables with our prefix that set no option.

    Args:
        root: the group of all commands.
        environment: names of variables.

    Raises:
        ConfigError: one is so similar to a known one that it must be a mistake. Ignoring it might
            leave a server without authentication.
    """
    known = {*OTHER_VARIABLES, *_variables(root)}
    unknown = sorted(n for n in environment if n.startswith(PREFIX) and n not in known)
    short = [name.removeprefix(PREFIX) for name in known]
    for name in unknown:
        found = difflib.get_close_matches(name.removeprefix(PREFIX), short, n=1, cutoff=ALIKE)
        if found:
            raise ConfigError(
                f"the variable {name} is not a setting: did you mean {PREFIX}{found[0]}?"
                " Correct or unset it"
            )
    return unknown


def _variables(command: Any) -> Iterator[str]:
    for parameter in command.params:
        names = parameter.envvar or ()
        yield from [names] if isinstance(names, str) else names
    for inside in getattr(command, "commands", {}).values():
        yield from _variables(inside)
