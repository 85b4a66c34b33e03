"""A learner without a model, for benchmarks of the service around it.

It learns every fact at once. The digest of its weights depends on the facts that it was taught and
on their order, so that its ledger can be replayed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers

from agent.errors import StaleVersionError
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
from memory_store.vocabulary import Step, Verdict

MODEL = "tiny"  # a known name; its weights are not loaded
BASE_DIGEST = hashlib.sha256(b"stand-in").hexdigest()
ALGORITHM = "stand-in/1"
# As large as that of a learner on a CPU.
ENVIRONMENT = {
    "device": "cpu",
    "torch": "2.9.0",
    "transformers": "4.57.0",
    "python": "3.11.9",
    "model": MODEL,
    "revision": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
    "dtype": "float32",
    "machine": "x86_64",
    "cpu_capability": "AVX512",
    "threads": "2",
}
MAX_TOKENS = 512
REHEARSED = 6
RIGHT = Answer(text="Raincoat", correct=True, log_probability=-0.05)


def digest_after(digest_before: str, fact_id: str) -> str:
    """The digest of the weights after they were taught a fact."""
    return hashlib.sha256(f"{digest_before} {fact_id}".encode()).hexdigest()


def steps_with(older_ids: Sequence[str], learning_rate: float) -> tuple[Step, ...]:
    """The two steps that every fact takes."""
    return tuple(
        Step(
            learning_rate=learning_rate / number,
            loss=2.1234567890123456 / number,
            probability=0.5123456789012345 * number,
            rehearsed_fact_ids=tuple(older_ids[:REHEARSED]),
            gradient_norm=12.345678901234567,
            answer_tokens=3,
            candidates=16,
        )
        for number in (1, 2)
    )


def byte_tokenizer() -> str:
    """The text of the `tokenizer.json` of a tokenizer with one token for each byte."""
    alphabet: list[str] = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    byte_level: Any = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = byte_level
    text: str = tokenizer.to_str()
    return text


def write_stub_snapshot(snapshots: Path, version: int, digest: str) -> int:
    """Writes a snapshot of the weights of a version; returns its bytes."""

    def save(file: Path) -> None:
        file.write_text(json.dumps([version, digest]))

    return write_snapshot(
        snapshots,
        save,
        model_version=version,
        digest=digest,
        base_digest=BASE_DIGEST,
        environment=ENVIRONMENT,
    ).size


class StubLearner:
    """One life of the learner; see `agent.teaching.learner_protocol.Learner`."""

    def __init__(self) -> None:
        self._version, self._digest = 0, BASE_DIGEST
        self._learned = ""

    async def describe(self) -> LearnerDescription:
        """Describes itself."""
        return LearnerDescription(
            device="cpu",
            parameters=0,
            model_version=self._version,
            base_digest=BASE_DIGEST,
            tokenizer=byte_tokenizer(),
            max_tokens=MAX_TOKENS,
            environment=ENVIRONMENT,
        )

    async def learn(self, lesson: LessonPlan) -> AsyncIterator[Step | Outcome]:
        """Yields both steps, then the outcome."""
        example, policy, older = lesson.example, lesson.policy, lesson.older
        if lesson.base_version != self._version:
            raise StaleVersionError(
                f"it is at version {self._version}, not at {lesson.base_version}"
            )
        await asyncio.sleep(0)
        steps = steps_with([other.fact_id for other in older], policy.learning_rate)
        for step in steps:
            yield step
        self._learned = digest_after(self._digest, example.fact_id)
        yield Outcome(
            verdict=Verdict.LEARNED,
            steps=steps,
            before=Answer(text="?", correct=False, log_probability=-5.0),
            after=RIGHT,
            transfer=(RIGHT,) * len(example.correlated_questions),
            forgetting=(RIGHT,) * len(older),
            digest_before=self._digest,
            digest_after=self._learned,
            algorithm=ALGORITHM,
        )

    async def sample(self, example: Example, samples: int) -> Outcome:
        """Is not supported."""
        raise NotImplementedError("it samples nothing")

    async def memory(self) -> tuple[int, int]:
        """Bytes used, and bytes in total."""
        return 1, 2

    async def commit(self, version: int, digest: str) -> None:
        """Serves the weights that were learned last."""
        if digest != self._learned:
            raise StaleVersionError(f"it cannot commit version {version}")
        self._version, self._digest = version, digest

    async def replay(
        self, updates: Iterable[ReplayedUpdate], accept_drift: bool = False
    ) -> AsyncIterator[tuple[int, str]]:
        """Applies rows of the ledger."""
        for row in updates:
            if row.update.steps:
                self._digest = digest_after(self._digest, row.update.fact_id)
            self._version = row.update.model_version
            yield self._version, self._digest

    async def restore(self, folder: Path) -> int:
        """Serves a snapshot."""
        verify_snapshot(folder)
        self._version, self._digest = json.loads((folder / WEIGHTS).read_text())
        return self._version

    async def snapshot(self, folder: Path) -> tuple[int, int]:
        """Writes one."""
        return self._version, write_stub_snapshot(folder, self._version, self._digest)

    async def export(self, folder: Path) -> int:
        """Writes nothing."""
        return self._version

    async def probe(self, example: Example, *, held: bool = True) -> tuple[list[Answer], int]:
        """Knows every answer."""
        return [RIGHT] * (1 + len(example.correlated_questions)), self._version

    async def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        """Gives the same answer to every question."""
        yield Generated(text=RIGHT.text, finished=True), self._version

    async def score(self, question: str, answer: str) -> tuple[float, int, int]:
        """Gives the same score to every answer."""
        return -1.0, 1, self._version

    async def forget_texts(self) -> None:
        """Has none to forget."""

    async def wait_dead(self) -> int:
        """Never returns: it does not die."""
        await asyncio.Event().wait()
        return 0


@asynccontextmanager
async def stub_process(*arguments: object, **more: object) -> AsyncIterator[StubLearner]:
    """Replaces `agent.server.learner_link.process.learner_process`."""
    yield StubLearner()
