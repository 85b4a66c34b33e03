"""The error object that a failed command prints with `--json`."""

from __future__ import annotations

import re
import sys
from typing import Any

from agent.cli.output import json_state, print_json
from agent.errors import ConfigError, DiskFullError, ModelError, ServerUnreachableError
from memory_store.errors import MemoryStoreError

USAGE = "WRONG_USAGE"
# For errors whose message does not always say what to do; the first match counts.
HINTS: tuple[tuple[type[Exception], str], ...] = (
    (ServerUnreachableError, "start a server with 'agent serve', or name another with --server"),
    (ConfigError, "correct the setting that the message names"),
    (ModelError, "'agent models list' shows the models that are known by name"),
    (DiskFullError, "make room on the disk, then repeat the command"),
    (MemoryStoreError, "'agent doctor' looks at the data folder"),
)


def asked_for_json() -> bool:
    """Whether this command should print an object, by a flag or by a setting."""
    flags = sys.argv[1:]
    if "--" in flags:
        flags = flags[: flags.index("--")]
    return json_state.asked or "--json" in flags


def report_failure(
    code: int,
    reason: str,
    message: str,
    hint: str = "",
    violations: tuple[tuple[str, str], ...] = (),
    retry_seconds: float | None = None,
) -> None:
    """Prints the error object, if one was asked for and no object was printed yet.

    Args:
        code: the exit code.
        reason: for programs, in capitals.
        message: for people, one line.
        hint: what to do, if the message does not say so itself.
        violations: invalid fields, each with the problem.
        retry_seconds: how long to wait before a retry; None if a retry does not help.
    """
    if json_state.printed or not asked_for_json():
        return
    print_json(
        {
            "error": {
                "code": code,
                "reason": reason,
                "message": message,
                "hint": hint,
                "violations": [{"field": field, "message": text} for field, text in violations],
                "retry_seconds": retry_seconds,
            }
        }
    )


def report_error(code: int, error: Exception, message: str, hint: str = "") -> None:
    """The same for an exception; errors of a server have their own reason and details."""
    more: dict[str, Any] = {
        name: getattr(error, name)
        for name in ("violations", "retry_seconds")
        if getattr(error, name, None)
    }
    if not hint:
        hint = next((text for type_, text in HINTS if isinstance(error, type_)), "")
    if retry := more.get("retry_seconds"):
        hint = f"try again in {retry:g} s"
    if reference := getattr(error, "reference", ""):
        hint = f"the server's log has more under {reference}"
    reason = getattr(error, "reason", "") or _name(error)
    report_failure(code, reason if isinstance(reason, str) else _name(error), message, hint, **more)


def _name(error: Exception) -> str:
    """`ServerUnreachableError` -> `SERVER_UNREACHABLE`."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+", type(error).__name__)
    return "_".join(word.upper() for word in words if word != "Error") or "ERROR"
