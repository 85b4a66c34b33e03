"""The learner as its callers see it, so that they depend on neither gRPC nor processes."""

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
    """A learner in another process: every method can raise `LearnerUnavailableError`."""

    async def describe(self) -> LearnerDescription:
        """Describes the loaded model."""
        ...

    def learn(self, lesson: LessonPlan) -> AsyncIterator[Opening | Step | Outcome]:
        """Yields an opening before the first step of each attempt, each step, and the outcome."""
        ...

    async def sample(self, example: Example, samples: int) -> Outcome:
        """The last outcome with counts of sampled texts, `samples` for each of its questions."""
        ...

    async def forget_texts(self) -> None:
        """Empties the caches of texts, after one of the texts was erased."""
        ...

    async def memory(self) -> tuple[int, int]:
        """Bytes in use and in total, of the GPU if there is one, else of RAM."""
        ...

    async def commit(self, version: int, digest: str) -> None:
        """Serves the last update."""
        ...

    def replay(
        self, updates: Iterable[ReplayedUpdate], accept_drift: bool = False
    ) -> AsyncIterator[tuple[int, str]]:
        """Replays ledger rows; yields each version and its digest."""
        ...

    async def restore(self, folder: Path) -> int:
        """Serves the weights of a snapshot; returns its version."""
        ...

    async def snapshot(self, folder: Path) -> tuple[int, int]:
        """Writes a snapshot of the served weights; returns its version and bytes."""
        ...

    async def export(self, folder: Path) -> int:
        """Writes the served weights as a Hugging Face checkpoint; returns their version."""
        ...

    async def probe(self, example: Example, *, held: bool = True) -> tuple[list[Answer], int]:
        """Answers to the fact's questions, and the version. `held`: the weights should know it."""
        ...

    def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        """Yields pieces of the answer, and last the whole answer, each with its model version."""
        ...

    async def score(self, question: str, answer: str) -> tuple[float, int, int]:
        """Log-probability of the answer, its number of tokens, and the model version."""
        ...

    async def wait_dead(self) -> int:
        """Returns when its process has ended."""
        ...


# Starts a learner with the base checkpoint; the context's exit ends it.
StartLearner = Callable[[], AbstractAsyncContextManager[Learner]]
