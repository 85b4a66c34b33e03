"""Options that belong together, as one dataclass: a command takes the whole as one parameter."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces each parameter whose type is a dataclass by that dataclass's fields.

    typer knows flat parameters only. A field is declared as a parameter would be: an `Annotated`
    type with a `typer.Option`, and a default. If the dataclass has a `PANEL`, its options are shown
    under this heading of the help (None: with all others), and each can be set by the variable
    `AGENT_` plus its name, unless it names another.
    """
    groups: dict[str, Any] = {}
    flat: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        group = parameter.annotation
        if not dataclasses.is_dataclass(group):
            flat.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[name] = group
        types = typing.get_type_hints(group, include_extras=True)
        if hasattr(group, "PANEL"):
            for field in dataclasses.fields(group):
                option = types[field.name].__metadata__[0]
                option.rich_help_panel = group.PANEL
                option.envvar = option.envvar or f"AGENT_{field.name.upper()}"
        flat += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=types[field.name],
            )
            for field in dataclasses.fields(group)
        ]

    @functools.wraps(command)
    def expanded(**options: Any) -> None:
        for name, group in groups.items():
            given = {field.name: options.pop(field.name) for field in dataclasses.fields(group)}
            options[name] = group(**given)
        command(**options)

    expanded.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined] # typer reads it
    return expanded
