"""Benchmarks: each compares what we have with a baseline of the same run on the same machine.

Figures of different machines say little about the code; their ratio does. What a figure must
reach is its floor.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


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
    """

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    floor: float | None
    device: str

    @property
    def reached(self) -> bool:
        """Whether the ratio is at its floor or above."""
        return self.floor is None or self.ratio >= self.floor

    def json(self) -> dict[str, Any]:
        """Its fields, by name."""
        return asdict(self)


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
