"""The interface of the model under study: reset it, take a step, ask questions many times."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Protocol

from eval.suites.paper.measurements import Measurement
from eval.suites.paper.trials import Call, CellKey


class TrialBackend(Protocol):
    """What an experiment needs of a model."""

    def back_to_base(self) -> None:
        """Restores the weights of the base model."""
        ...

    def step(self, pairs: Sequence[tuple[str, str]], learning_rate: float) -> float:
        """Takes a step of a new optimizer; returns the loss before it, in nats a token."""
        ...

    def ask(self, calls: Sequence[Call], done: Container[CellKey]) -> Iterator[Measurement]:
        """Measures the cells that are not done; yields each as soon as it is measured."""
        ...

    def notes(self, calls: Iterable[Call]) -> list[str]:
        """Deviations from the protocol in these calls, for readers of the results."""
        ...
