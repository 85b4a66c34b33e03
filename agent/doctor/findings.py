"""What a check found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

GIB = 2**30


class State(StrEnum):
    """How bad it is."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        check: the name of the check; `examine` sets it.
        state: how bad it is; only bad keeps a server from working.
        found: what there is.
        remedy: what to do about it; empty if nothing.
    """

    check: str = ""
    state: State
    found: str
    remedy: str = ""


def good(found: str) -> Finding:
    """Nothing to do."""
    return Finding(state=State.GOOD, found=found)


def warning(found: str, remedy: str) -> Finding:
    """A server works, but not well."""
    return Finding(state=State.WARNING, found=found, remedy=remedy)


def bad(found: str, remedy: str) -> Finding:
    """A server does not work."""
    return Finding(state=State.BAD, found=found, remedy=remedy)
