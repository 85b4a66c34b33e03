"""A learner without a model: its weights are the list of facts it was taught, its digest too.

So a wrong order, a fact learned twice, or a ledger row that was not replayed shows in the digest,
as it would with real weights.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from agent.errors import DriftError, LearnerUnavailableError, StaleVersionError
from agent.snapshots import verify_snapshot, write_snapshot
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
from memory_store.vocabulary import Policy, RatePoint, Refusal, Step, Verdict

BASE = "base"
ALGORITHM = "fake/1"
RIGHT = Answer(text="right", correct=True, log_probability=-0.05)
CURVE = (RatePoint(1e-5, 0.25), RatePoint(1e-3, 0.5))
BASE_ANSWER = "nobody knows"
LEAK = 0.125
WRONG = Answer(text="wrong", correct=False, log_probability=-9.0)


def steps(rehearsed: Sequence[Example] = ()) -> tuple[Step, ...]:
    """The two steps that every fact takes."""
    ids = tuple(other.fact_id for other in rehearsed)
    return (
        Step(learning_rate=1e-3, loss=2.0, probability=0.5, rehearsed_fact_ids=ids),
        Step(learning_rate=1e-3, loss=0.7, probability=0.95, rehearsed_fact_ids=ids),
    )


class FakeLearner:
    """One life of a learner: from the base on, until it dies."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._died: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._learned: str | None = None
        self._outcome: Outcome | None = None
        self.served: list[str] = []
        self.version = 0

    @property
    def digest(self) -> str:
        return "+".join([BASE, *self.served])

    def die(self, code: int = 9) -> None:
        self._died.set_result(code)

    def _reach(self, point: str) -> None:
        """Fails here if the machine was told so."""
        if self._machine.faults[point]:
            error = self._machine.faults[point].pop(0)
            if isinstance(error, LearnerUnavailableError) and not self._died.done():
                self.die()
            raise error
        if self._died.done():
            raise LearnerUnavailableError("it is gone")

    async def describe(self) -> LearnerDescription:
        self._reach("describe")
        return LearnerDescription(
            device=self._machine.device,
            parameters=0,
            model_version=self.version,
            base_digest=BASE,
            tokenizer=self._machine.tokenizer,
            max_tokens=512,
            environment={"machine": "fake"},
            algorithm=self._machine.algorithm,
        )

    async def learn(self, lesson: LessonPlan) -> AsyncIterator[Opening | Step | Outcome]:
        example, policy, older = lesson.example, lesson.policy, lesson.older
        self._machine.asked_to_learn.append(example.question)
        self._machine.policies.append(policy)
        self._reach("learn")
        if lesson.base_version != self.version:
            raise StaleVersionError(f"at {self.version}, not at {lesson.base_version}")
        verdict = Verdict(self._machine.verdicts.get(example.question, "learned"))
        taken = () if verdict == "known" else steps(older)
        if taken:
            yield Opening(before=WRONG, curve=CURVE, base_answer=BASE_ANSWER)
        for step in taken:
            yield step
            await self._machine.may_learn.wait()
        self._reach("outcome")
        learned = verdict == "learned"
        before = self.digest
        self._learned = f"{before}+{example.fact_id}" if learned else None
        if learned:
            self._machine.fallen.discard(example.question)
        self._outcome = Outcome(
            verdict=verdict,
            reason="too hard" if verdict == "resisted" else "",
            refusal=Refusal.NOT_LEARNED if verdict == "resisted" else None,
            steps=taken,
            before=RIGHT if verdict == "known" else WRONG,
            after=WRONG if verdict == "resisted" else RIGHT,
            transfer=(WRONG,) * len(example.correlated_questions),
            forgetting=(RIGHT,) * len(older) if learned else (),
            digest_before=before,
            digest_after=self._learned or before,
            algorithm=self._machine.algorithm,
            general_text=self._machine.general_text,
            curve=CURVE,
            base_answer=BASE_ANSWER,
            leak=LEAK,
        )
        yield self._outcome

    async def sample(self, example: Example, samples: int) -> Outcome:
        self._machine.sampling.set()
        await self._machine.may_sample.wait()
        self._reach("sample")
        assert self._outcome is not None
        after = replace(self._outcome.after, samples=samples, correct_samples=samples // 2)
        return replace(self._outcome, after=after)

    async def forget_texts(self) -> None:
        pass

    async def memory(self) -> tuple[int, int]:
        return 1, 2

    async def commit(self, version: int, digest: str) -> None:
        await self._machine.may_commit.wait()
        self._reach("commit")
        if version <= self.version or digest != self._learned:
            raise StaleVersionError(f"cannot commit {version}")
        self.served.append(digest.rpartition("+")[2])
        self.version = version

    async def replay(
        self, updates: Iterable[ReplayedUpdate], accept_drift: bool = False
    ) -> AsyncIterator[tuple[int, str]]:
        for row in updates:
            self._reach("replay")
            if row.update.parent_version != self.version:
                raise StaleVersionError(f"at {self.version}, not at {row.update.parent_version}")
            if row.update.steps and row.update.algorithm != self._machine.algorithm:
                raise DriftError(f"{row.update.algorithm} is not {self._machine.algorithm}")
            rehearsed = {id_ for step in row.update.steps for id_ in step.rehearsed_fact_ids}
            assert {example.fact_id for example in row.rehearsed} == rehearsed
            if row.update.steps:
                self.served.append(row.example.fact_id)
            if self.digest != row.update.digest_after and not accept_drift:
                raise DriftError(f"{self.digest} is not {row.update.digest_after}")
            self.version = row.update.model_version
            yield self.version, self.digest

    async def restore(self, folder: Path) -> int:
        manifest = verify_snapshot(folder)
        self.served = manifest.digest.split("+")[1:]
        self.version = manifest.model_version
        return self.version

    async def snapshot(self, folder: Path) -> tuple[int, int]:
        self._reach("snapshot")

        def save(file: Path) -> None:
            file.write_text(self.digest)

        manifest = write_snapshot(
            folder,
            save,
            model_version=self.version,
            digest=self.digest,
            base_digest=BASE,
            environment={},
        )
        return manifest.model_version, manifest.size

    async def export(self, folder: Path) -> int:
        return self.version

    async def probe(self, example: Example, *, held: bool = True) -> tuple[list[Answer], int]:
        self._machine.probed.append(example.question)
        self._reach("probe")
        own = WRONG if example.question in self._machine.fallen else RIGHT
        return [own, *(WRONG for _ in example.correlated_questions)], self.version

    async def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        yield Generated(text="right", finished=True), self.version

    async def score(self, question: str, answer: str) -> tuple[float, int, int]:
        return RIGHT.log_probability, 1, self.version

    async def wait_dead(self) -> int:
        return await asyncio.shield(self._died)


class Machine:
    """Starts learners, one after the other, and is told what shall go wrong.

    Attributes:
        faults: by point (`start`, `describe`, `replay`, `learn`, `outcome`, `commit`, `probe`,
            `snapshot`):
            what is raised there, the next times that it is reached. A `LearnerUnavailableError`
            is the learner's death.
        algorithm: by which updates are made, and the only one that is replayed.
        tokenizer: as a `tokenizer.json`; empty: none is told.
        general_text: digest of what updates are held to.
        verdicts: by question, if not `learned`.
        fallen: questions that are answered wrongly when they are probed, until taught again.
        may_learn: set unless learners shall wait in the middle of an update.
        may_sample: set unless they shall wait while they sample.
        sampling: set once one does.
        may_commit: set unless they shall wait before they serve it.
        learners: all that were started, in order.
        asked_to_learn: the question of every update that was begun.
        policies: the same of their policies.
        probed: the question of every probe that was begun.
    """

    def __init__(self) -> None:
        self.device = "fake"
        self.algorithm = ALGORITHM
        self.tokenizer = self.general_text = ""
        self.faults: dict[str, list[Exception]] = defaultdict(list)
        self.verdicts: dict[str, str] = {}
        self.fallen: set[str] = set()
        self.may_learn = asyncio.Event()
        self.may_learn.set()
        self.may_sample = asyncio.Event()
        self.may_sample.set()
        self.sampling = asyncio.Event()
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self.learners: list[FakeLearner] = []
        self.asked_to_learn: list[str] = []
        self.policies: list[Policy] = []
        self.probed: list[str] = []

    @asynccontextmanager
    async def start(self) -> AsyncIterator[FakeLearner]:
        if self.faults["start"]:
            raise self.faults["start"].pop(0)
        learner = FakeLearner(self)
        self.learners.append(learner)
        yield learner
