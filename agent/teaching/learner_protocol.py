"""What the learning loop needs from outside, so that it knows neither gRPC nor processes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from agent.teaching.plan import LessonPlan
from agent.teaching.types import (
    Answer,
    Example,
    Generated,
    LearnerDescription,
    Opening,
    Outcome,
    ReplayedUpdate,
)
from memory_store.vocabulary import Step


class Learner(Protocol):
    """A learner that may be gone: every method can raise `LearnerUnavailableError`."""

    async def describe(self) -> LearnerDescription:
        """What is loaded."""
        ...

    def learn(self, lesson: LessonPlan) -> AsyncIterator[Opening | Step | Outcome]:
        """Yields each step, then the outcome; an opening before the first one of an attempt."""
        ...

    async def sample(self, example: Example, samples: int) -> Outcome:
        """The last outcome again, with counts of so many texts for each of its questions."""
        ...

    async def forget_texts(self) -> None:
        """Drops the texts that it keeps to save work, after one of them was erased."""
        ...

    async def memory(self) -> tuple[int, int]:
        """Bytes it takes of its GPU, or of RAM, and what there is of it."""
        ...

    async def commit(self, version: int, digest: str) -> None:
        """Serves what was learned last."""
        ...

    def replay(
        self, updates: Iterable[ReplayedUpdate], accept_drift: bool = False
    ) -> AsyncIterator[tuple[int, str]]:
        """Applies ledger rows again; yields each version reached and its digest."""
        ...

    async def restore(self, folder: Path) -> int:
        """Serves the weights of a snapshot; returns its version."""
        ...

    async def snapshot(self, folder: Path) -> tuple[int, int]:
        """Writes a snapshot of what is served; returns its version and bytes."""
        ...

    async def export(self, folder: Path) -> int:
        """Writes what is served as a plain checkpoint; returns its version."""
        ...

    async def probe(self, example: Example, *, held: bool = True) -> tuple[list[Answer], int]:
        """Answers to the fact's questions, and the version; not `held`: it need not know them."""
        ...

    def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        """Pieces of the answer and last the whole, each with its model version."""
        ...

    async def score(self, question: str, answer: str) -> tuple[float, int, int]:
        """Log-probability of the answer, its number of tokens, and the model version."""
        ...

    async def wait_dead(self) -> int:
        """Returns once it is gone."""
        ...


# Makes a learner that has loaded the base checkpoint, and ends it on leaving.
StartLearner = Callable[[], AbstractAsyncContextManager[Learner]]
