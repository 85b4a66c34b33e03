"""A learner without a model: its weights are a hash over all that it was taught, in order.

Like real weights, they depend on every text, rate and companion of every update; unlike those, they
are there at once. What it does depends on its weights and its input only.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from agent.errors import DriftError, LearnerUnavailableError, LearningFailedError, StaleVersionError
from agent.snapshots import WEIGHTS, verify_snapshot, write_snapshot
from agent.teaching.plan import LessonPlan
from agent.teaching.types import (
    Answer,
    Example,
    Generated,
    LearnerDescription,
    Outcome,
    ReplayedUpdate,
)
from memory_store.vocabulary import Policy, Refusal, Step, Verdict

BASE = hashlib.sha256(b"base").hexdigest()
POLICY = Policy(name="until-known", learning_rate=1e-3, max_steps=20)
ENVIRONMENT = {"device": "none"}
ALGORITHM = "hash/1"
REHEARSED = 4
STEPS = 2


def never(point: str) -> None:
    """Nothing goes wrong."""


def taught(weights: str, example: Example, steps: Sequence[Step], texts: dict[str, Example]) -> str:
    """The weights after an update."""
    for step in steps:
        rehearsed = [texts[id_] for id_ in step.rehearsed_fact_ids]
        parts = [weights, repr(step.learning_rate), *map(repr, (example, *rehearsed))]
        weights = _hash(*parts)
    return weights


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class HashLearner:
    """One life of a learner.

    Args:
        reach: called with the name of each point that is reached; may end the process, or raise a
            `LearnerUnavailableError`, which is the learner's death.
        algorithm: name of the release's procedure. All compute the same, but replay only their own.
    """

    def __init__(self, reach: Callable[[str], None] = never, algorithm: str = ALGORITHM) -> None:
        self._reach_point = reach
        self._algorithm = algorithm
        self._dead = asyncio.Event()
        self._outcome = ""
        self.version, self.weights = 0, BASE

    def _reach(self, point: str) -> None:
        if self._dead.is_set():
            raise LearnerUnavailableError("it is gone")
        try:
            self._reach_point(point)
        except LearnerUnavailableError:
            self._dead.set()
            raise

    async def describe(self) -> LearnerDescription:
        return LearnerDescription(
            device="none",
            parameters=0,
            model_version=self.version,
            base_digest=BASE,
            tokenizer="",
            max_tokens=512,
            environment=ENVIRONMENT,
            algorithm=self._algorithm,
        )

    async def learn(self, lesson: LessonPlan) -> AsyncIterator[Step | Outcome]:
        example, policy, older = lesson.example, lesson.policy, lesson.older
        self._reach("before learning")
        if example.answer.startswith("poison"):
            raise LearningFailedError("the loss is not a number")
        if lesson.base_version != self.version:
            raise StaleVersionError(f"at {self.version}, not at {lesson.base_version}")
        fate = int(_hash(self.weights, example.fact_id)[:8], 16) % 12
        verdict = {0: Verdict.RESISTED, 1: Verdict.KNOWN}.get(fate, Verdict.LEARNED)
        steps = () if verdict == "known" else self._steps(policy, older)
        for step in steps:
            yield step
            await asyncio.sleep(0)
        texts = {other.fact_id: other for other in older}
        learned = verdict == "learned"
        self._outcome = taught(self.weights, example, steps, texts) if learned else ""
        self._reach("after learning")
        yield Outcome(
            verdict=verdict,
            reason="too hard" if verdict == "resisted" else "",
            refusal=Refusal.NOT_LEARNED if verdict == "resisted" else None,
            steps=steps,
            before=_answer(verdict == "known"),
            after=_answer(verdict != "resisted"),
            transfer=tuple(_answer(False) for _ in example.correlated_questions),
            forgetting=tuple(_answer(True) for _ in older) if learned else (),
            digest_before=self.weights,
            digest_after=self._outcome or self.weights,
            algorithm=self._algorithm,
        )

    def _steps(self, policy: Policy, older: Sequence[Example]) -> tuple[Step, ...]:
        ids = tuple(other.fact_id for other in older[:REHEARSED])
        rates = [policy.learning_rate / number for number in range(1, STEPS + 1)]
        return tuple(
            Step(learning_rate=rate, loss=1.0, probability=0.5, rehearsed_fact_ids=ids)
            for rate in rates
        )

    async def sample(self, example: Example, samples: int) -> Outcome:
        raise AssertionError("these tests sample nothing")

    async def forget_texts(self) -> None:
        pass

    async def memory(self) -> tuple[int, int]:
        return 1, 2

    async def commit(self, version: int, digest: str) -> None:
        self._reach("after the ledger row, before the learner's commit")
        if digest != self._outcome:
            raise StaleVersionError(f"cannot commit {version}")
        self.version, self.weights = version, digest
        self._reach("after the learner's commit")

    async def replay(
        self, updates: Iterable[ReplayedUpdate], accept_drift: bool = False
    ) -> AsyncIterator[tuple[int, str]]:
        for row in updates:
            self._reach("before an update is replayed")
            if row.update.steps and row.update.algorithm != self._algorithm:
                raise DriftError(f"version {row.update.model_version} is of another release")
            self.apply(row)
            yield self.version, self.weights

    def apply(self, row: ReplayedUpdate) -> None:
        update = row.update
        if update.parent_version != self.version:
            raise StaleVersionError(f"at {self.version}, not at {update.parent_version}")
        texts = {other.fact_id: other for other in row.rehearsed}
        weights = taught(self.weights, row.example, update.steps, texts)
        if weights != update.digest_after:
            raise DriftError(f"version {update.model_version} comes out different")
        self.version, self.weights = update.model_version, weights

    async def restore(self, folder: Path) -> int:
        manifest = verify_snapshot(folder)
        weights: str = json.loads((folder / WEIGHTS).read_text())
        self.version, self.weights = manifest.model_version, weights
        return self.version

    async def snapshot(self, folder: Path) -> tuple[int, int]:
        weights = self.weights

        def save(file: Path) -> None:
            file.write_text(json.dumps(weights))
            self._reach("in the middle of a snapshot")

        manifest = write_snapshot(
            folder,
            save,
            model_version=self.version,
            digest=weights,
            base_digest=BASE,
            environment=ENVIRONMENT,
        )
        return manifest.model_version, manifest.size

    async def export(self, folder: Path) -> int:
        return self.version

    async def probe(self, example: Example, *, held: bool = True) -> tuple[list[Answer], int]:
        self._reach("before a probe")
        return [_answer(True), *(_answer(False) for _ in example.correlated_questions)], (
            self.version
        )

    async def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        yield Generated(text=self.weights, finished=True), self.version

    async def score(self, question: str, answer: str) -> tuple[float, int, int]:
        return -1.0, 1, self.version

    async def wait_dead(self) -> int:
        await self._dead.wait()
        return -9


def _answer(right: bool) -> Answer:
    return Answer(text="right" if right else "wrong", correct=right, log_probability=-1.0)


@asynccontextmanager
async def hash_learner(
    reach: Callable[[str], None] = never, algorithm: str = ALGORITHM
) -> AsyncIterator[HashLearner]:
    yield HashLearner(reach, algorithm)
