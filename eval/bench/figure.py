"""Benchmarks: each compares what we have with a baseline of the same run on the same machine.

Figures of different machines say little about the code; their ratio does. What a ratio must reach
is its floor; the floor of work on a model is what the device allows, see `ceilings.py`.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.errors import AgentError

# Ends the unit of what is better if there is more of it.
PER_SECOND = "/s"


class WrongResultError(AgentError):
    """What was measured is fast, but not right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One comparison.

    Attributes:
        name: what was measured.
        ours: in `unit`.
        baseline: in the same unit.
        unit: per second or milliseconds, say.
        ratio: how good ours is beside the baseline; more is better.
        floor: what the ratio should reach; None if it is there to read the others by.
        device: what it was measured on.
        of_device: the floor is in `unit` instead: nothing can be better on this device. Nobody
            need reach it.
    """

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    floor: float | None
    device: str
    of_device: bool = False

    @property
    def reached(self) -> bool:
        """Whether the ratio is at its floor or above."""
        return self.floor is None or self.of_device or self.ratio >= self.floor

    @property
    def share_of_floor(self) -> float | None:
        """How much of what the device allows is reached, up to 1; None if that is not known."""
        if self.floor is None or not self.of_device:
            return None
        more_is_better = self.unit.endswith(PER_SECOND)
        return self.ours / self.floor if more_is_better else self.floor / self.ours

    def json(self) -> dict[str, Any]:
        """Its fields, by name."""
        return {name: value for name, value in asdict(self).items() if name != "of_device"}


def beside_plain(
    name: str, ours: float, plain: float, unit: str, floor: float | None, device: str
) -> Figure:
    """Work on a model, beside the plain way of doing it; for the arguments see `Figure`."""
    return Figure(
        name=name,
        ours=ours,
        baseline=plain,
        unit=unit,
        ratio=ours / plain if unit.endswith(PER_SECOND) else plain / ours,
        floor=floor,
        device=device,
        of_device=True,
    )


def this_machine() -> str:
    """The processor and how many cores of it this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{name}, {len(os.sched_getaffinity(0))} cores"
