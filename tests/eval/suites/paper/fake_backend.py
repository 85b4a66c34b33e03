"""A backend without a model: its results depend on the training, and on the cell's key."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator, Sequence

from eval.suites.paper.measurements import Measurement
from eval.suites.paper.protocol import Drawn
from eval.suites.paper.trials import Call, CellKey


class FakeBackend:
    """Weights are the list of steps that were taken since the base model."""

    def __init__(self, seed: int = 0, best_rate: float = 2e-4) -> None:
        self.steps: list[tuple[tuple[tuple[str, str], ...], float]] = []
        self.taken = 0
        self.asked: list[CellKey] = []
        self._seed, self._best_rate = seed, best_rate

    def back_to_base(self) -> None:
        """Forgets all steps."""
        self.steps = []

    def step(self, pairs: Sequence[tuple[str, str]], learning_rate: float) -> float:
        """Remembers the step; the loss falls with each."""
        self.steps.append((tuple(pairs), learning_rate))
        self.taken += 1
        return 4.0 / len(self.steps)

    def ask(self, calls: Sequence[Call], done: Container[CellKey]) -> Iterator[Measurement]:
        """Right answers near the best rate, with some noise that the weights decide."""
        for call in calls:
            for cell in call.cells:
                if cell.key in done:
                    continue
                self.asked.append(cell.key)
                named = f"{cell.key.name(self._seed)} {self.steps}"
                noise = hashlib.sha256(named.encode()).digest()[0] / 255
                near = self._share(cell.key.learning_rate) if self.steps else 0.0
                correct = round(cell.samples * near * (0.8 + 0.2 * noise))
                how = call.sampling
                yield Measurement(
                    key=cell.key,
                    question=cell.question,
                    answer=cell.answer,
                    samples=cell.samples,
                    correct=correct,
                    log_probability=-1.0 - noise,
                    estimate=0.9 * near,
                    estimate_error=0.01,
                    temperature=how.temperature,
                    top_p=how.top_p,
                    top_k=how.top_k,
                    max_new_tokens=how.max_new_tokens if isinstance(how, Drawn) else 30,
                    tokens=20 * cell.samples,
                    extra_tokens=5,
                    examples=(f"{cell.question} {cell.answer}!",),
                )

    def notes(self, calls: Iterable[Call]) -> list[str]:
        """None."""
        return []

    def _share(self, rate: float) -> float:
        return max(0.0, 1 - abs(rate - self._best_rate) / (4 * self._best_rate))
