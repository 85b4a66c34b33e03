"""One figure of a benchmark: the current code compared with a baseline on the same machine.

Figures of different machines say little about the code; ratios do. A ratio should reach its floor.
The floor of work on a model is the limit of the device, see `roofline.py`.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.errors import AgentError

# Ends the units in which more is better.
PER_SECOND = "/s"


class WrongResultError(AgentError):
    """The code that was measured is fast, but its result is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One comparison.

    Attributes:
        name: what was measured.
        ours: in `unit`.
        baseline: in the same unit.
        unit: for example `calls/s` or `ms`.
        ratio: how good ours is compared with the baseline; more is better.
        floor: what the ratio should reach; None if nothing is required.
        device: what it was measured on.
        device_limit: the floor is the limit of the device instead, in `unit`. It need not be
            reached.
    """

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    floor: float | None
    device: str
    device_limit: bool = False

    @property
    def reached(self) -> bool:
        """Whether the ratio is at its floor or above."""
        return self.floor is None or self.device_limit or self.ratio >= self.floor

    @property
    def share_of_limit(self) -> float | None:
        """How much of what the device allows is reached, up to 1; None if that is unknown."""
        if self.floor is None or not self.device_limit:
            return None
        return _gain(self.ours, self.floor, self.unit)

    def json(self) -> dict[str, Any]:
        """Its fields, by name."""
        return {name: value for name, value in asdict(self).items() if name != "device_limit"}


def compare(
    name: str,
    ours: float,
    baseline: float,
    unit: str,
    floor: float | None = None,
    device: str | None = None,
    *,
    device_limit: bool = False,
) -> Figure:
    """Makes a figure whose unit says whether more is better; for the arguments see `Figure`.

    The device is this machine if none is given.
    """
    return Figure(
        name=name,
        ours=ours,
        baseline=baseline,
        unit=unit,
        ratio=_gain(ours, baseline, unit),
        floor=floor,
        device=device or this_machine(),
        device_limit=device_limit,
    )


def _gain(ours: float, other: float, unit: str) -> float:
    return ours / other if unit.endswith(PER_SECOND) else other / ours


def this_machine() -> str:
    """The processor, and how many of its cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name
    )
    return f"{name}, {len(os.sched_getaffinity(0))} cores"
