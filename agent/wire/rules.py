"""Checks messages by the rules in the .proto files (`buf.validate`)."""

from __future__ import annotations

import functools
from typing import Any

import protovalidate
from google.protobuf.message import Message

from agent.errors import InvalidFactError


def check_rules(message: Message) -> None:
    """Checks one message. Takes microseconds, and milliseconds for the first of each type.

    Raises:
        InvalidFactError: at least one field breaks a rule; the error names each.
    """
    violations = _validator().collect_violations(message)
    if violations:
        (field, text), *more = (_described(violation) for violation in violations)
        raise InvalidFactError(field, text, more)


@functools.cache
def _validator() -> protovalidate.Validator:
    return protovalidate.Validator()


def _described(violation: protovalidate.Violation) -> tuple[str, str]:
    """Returns the path of a field, such as `correlated_questions[1]`, and what is wrong."""
    found = violation.proto
    path = ".".join(_element(element) for element in found.field.elements) if found.field else ""
    return path or "request", found.message


def _element(element: Any) -> str:
    subscript = "" if element.subscript is None else f"[{element.subscript.value}]"
    return f"{element.field_name}{subscript}"
