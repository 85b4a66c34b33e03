"""The settings file and the variables of the environment: nothing in them is ignored in silence."""

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
# Read outside the command line: where models are kept, which wheel is the embedded model, data sets
# of the laboratory, kernels.
OTHER_VARIABLES = ("AGENT_CACHE", "AGENT_EVAL_DATA", "AGENT_KERNELS", "AGENT_SMOLLM")
# A command that looks at what another one would do is set up like it.
SET_UP_AS = {"doctor": "serve"}
# Alike enough to be a slip of the keyboard; `AGENT_NAME` of a build server is not.
ALIKE = 0.85
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command, as a settings file may give it.

    Attributes:
        parameter: its name to the command line's library.
        kind: bool, int, float, or str for everything that is written as text.
        is_list: whether it may be given several times.
    """

    parameter: str
    kind: type
    is_list: bool


@dataclass(frozen=True, slots=True)
class Command:
    """What a table of the file may hold: options, and the tables of the commands inside."""

    options: Mapping[str, Option]
    commands: Mapping[str, Command]

    @classmethod
    def of(cls, command: Any) -> Command:
        """Of a command or group of the command line's library."""
        inside: Mapping[str, Any] = getattr(command, "commands", {})
        return cls(
            options=dict(_options(command)),
            commands={name: cls.of(other) for name, other in inside.items()},
        )

    def everywhere(self) -> dict[str, list[Option]]:
        """The options of all commands inside, by name."""
        found: dict[str, list[Option]] = {}
        for command in self.commands.values():
            for name, option in command.options.items():
                found.setdefault(name, []).append(option)
            for name, options in command.everywhere().items():
                found.setdefault(name, []).extend(options)
        return found


def read_settings(path: Path | None, root: Command) -> dict[str, Any]:
    """The defaults by command, as the command line's library wants them.

    Args:
        path: of the file; None: that of the user, if there is one.
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
    """The defaults of some commands: what all of them inherit, then what their own table says."""
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
    content: Mapping[str, Any],
    options: Iterable[str],
    commands: Iterable[str],
    prefix: str,
) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
    """The values and the tables of a table, by the names of options and commands.

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
        # A bool is an int to Python, and to nobody else.
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
    """The type of a value, and whether there may be several."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        [annotation] = [arg for arg in typing.get_args(annotation) if arg is not types.NoneType]
    if typing.get_origin(annotation) is list:
        [item] = typing.get_args(annotation)
        return _kind(item)[0], True
    return (annotation if annotation in KINDS else str), False


def unknown_variables(root: Any, environment: Iterable[str]) -> list[str]:
    """Variables with our prefix that no option is set by.

    Args:
        root: the group of all commands.
        environment: names of variables.

    Raises:
        ConfigError: one is so like a known one that it must be a slip: ignored, it might leave a
            server without authentication.
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
