"""The real learner on the tiny model, in this process: the port without processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from agent.errors import LearnerUnavailableError
from agent.learner.checkpoint import prepare_snapshot, restore_snapshot
from agent.learner.core import Learner
from agent.models.loading import load
from agent.teaching.guard_presets import REHEARSAL
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
from memory_store.vocabulary import Policy, Step

POLICY = Policy(name="until-known", learning_rate=3e-3, max_steps=100, guards=REHEARSAL)


class InProcessLearner:
    """Dies at some calls of `learn` or `commit`, counted over all learners of a test."""

    def __init__(self, deaths: Deaths, model: str = "tiny") -> None:
        self.learner = Learner(load(model, device="cpu"))
        self._deaths = deaths
        self._dead = asyncio.Event()
        self.probed: list[tuple[str, bool]] = []
        self.attempts: list[tuple[str, bool]] = []

    def _live_or_die(self) -> None:
        if self._deaths.now():
            self._dead.set()
        if self._dead.is_set():
            raise LearnerUnavailableError("killed by the test")

    async def describe(self) -> LearnerDescription:
        return self.learner.describe()

    async def learn(self, lesson: LessonPlan) -> AsyncIterator[Opening | Step | Outcome]:
        self.attempts.append((lesson.example.fact_id, lesson.again))
        self._live_or_die()
        fault = self._deaths.poison.get(lesson.example.fact_id)
        if isinstance(fault, LearnerUnavailableError):
            self._dead.set()
        if fault is not None:
            raise fault
        for progress in self.learner.learn(lesson):
            yield progress
            await asyncio.sleep(0)

    async def sample(self, example: Example, samples: int) -> Outcome:
        raise AssertionError("these tests sample nothing")

    async def forget_texts(self) -> None:
        self.learner.forget_texts()

    async def memory(self) -> tuple[int, int]:
        return 0, 0

    async def commit(self, version: int, digest: str) -> None:
        self._live_or_die()
        self.learner.commit(version, digest)

    async def replay(
        self, updates: Iterable[ReplayedUpdate], accept_drift: bool = False
    ) -> AsyncIterator[tuple[int, str]]:
        for row in updates:
            for _ in self.learner.replay(row, accept_drift=accept_drift):
                await asyncio.sleep(0)
            yield self.learner.version, self.learner.digest

    async def restore(self, folder: Path) -> int:
        restore_snapshot(self.learner, folder)
        return self.learner.version

    async def snapshot(self, folder: Path) -> tuple[int, int]:
        manifest = prepare_snapshot(self.learner, folder)()
        return manifest.model_version, manifest.size

    async def export(self, folder: Path) -> int:
        self.learner.export(folder)
        return self.learner.version

    async def probe(self, example: Example, *, held: bool = True) -> tuple[list[Answer], int]:
        self.probed.append((example.fact_id, held))
        return self.learner.probe(example), self.learner.version

    async def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        for piece in self.learner.ask(question, max_new_tokens):
            yield piece, self.learner.version

    async def score(self, question: str, answer: str) -> tuple[float, int, int]:
        return *self.learner.score(question, answer), self.learner.version

    async def wait_dead(self) -> int:
        await self._dead.wait()
        return -9


class Deaths:
    """Counts calls, and tells at which ones the learner dies.

    Attributes:
        poison: by id, facts that cannot be learned, and what is raised.
    """

    def __init__(self, *at: int) -> None:
        self._at = set(at)
        self._calls = 0
        self.poison: dict[str, Exception] = {}

    def now(self) -> bool:
        self._calls += 1
        return self._calls in self._at


@asynccontextmanager
async def in_process(deaths: Deaths, model: str = "tiny") -> AsyncIterator[InProcessLearner]:
    yield InProcessLearner(deaths, model)
