"""The model under study: back to its base weights, one step, questions asked many times."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Protocol

from eval.suites.paper.measurements import Measurement
from eval.suites.paper.trials import Call, CellKey


class TrialBackend(Protocol):
    """What running an experiment needs of a model."""

    def back_to_base(self) -> None:
        """Puts the base model's weights back."""
        ...

    def step(self, pairs: Sequence[tuple[str, str]], learning_rate: float) -> float:
        """One step of a fresh optimizer on these pairs; the loss before it, nats a token."""
        ...

    def ask(self, calls: Sequence[Call], done: Container[CellKey]) -> Iterator[Measurement]:
        """Measures the cells of the calls that are not done; yields each as soon as it is."""
        ...

    def notes(self, calls: Iterable[Call]) -> list[str]:
        """What a reader must know: departures from the protocol that these calls need here."""
        ...
