"""Alternating rounds: other load on the machine affects everything that is compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from agent.learner.environment import make_deterministic

LEAST, MOST = 3, 51


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Way:
    """One of the ways that are compared.

    Attributes:
        work: is timed.
        prepare: is called before it, and is not timed.
    """

    work: Callable[[], object]
    prepare: Callable[[], object] = _nothing


@dataclass(frozen=True, slots=True)
class Rounds:
    """The results of rounds.

    Attributes:
        seconds: of each round, by the name of the way.
    """

    seconds: Mapping[str, Sequence[float]]

    @property
    def number(self) -> int:
        """How many there were."""
        return min(map(len, self.seconds.values()))

    def milliseconds(self, name: str) -> float:
        """The median of a way."""
        return 1000 * statistics.median(self.seconds[name])


def alternate(
    ways: Mapping[str, Way], device: torch.device, seconds: float, least: int = LEAST
) -> Rounds:
    """Times all ways in turns, after one turn that is not counted.

    Args:
        ways: by name. On a GPU those that capture graphs come first.
        device: is waited for before and after each.
        seconds: no further round begins that would not end within this time.
        least: the number of rounds in any case.
    """
    for way in ways.values():
        timed(way, device)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    started = begun = time.perf_counter()
    for number in range(1, MOST + 1):
        for name, way in ways.items():
            taken[name].append(timed(way, device))
        now = time.perf_counter()
        if number >= least and now + (now - begun) > started + seconds:
            break
        begun = now
    return Rounds(taken)


def timed(way: Way, device: torch.device) -> float:
    """Seconds of one turn."""
    way.prepare()
    _wait_for(device)
    started = time.perf_counter()
    way.work()
    _wait_for(device)
    return time.perf_counter() - started


@contextmanager
def as_the_learner() -> Iterator[None]:
    """Computes as in the learner's process: repeatably, and with TF32 on a GPU."""
    precision = torch.get_float32_matmul_precision()
    make_deterministic()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision(precision)


@contextmanager
def as_usual() -> Iterator[None]:
    """Allows algorithms that are not repeatable, as the baseline uses them."""
    repeatable = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(repeatable)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
