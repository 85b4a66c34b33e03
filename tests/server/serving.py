"""A real server over a real store, in this process; only the learner is a stand-in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from agent.config import Security
from agent.errors import LearnerUnavailableError
from agent.server.api.admin_servicer import AdminServicer
from agent.server.api.events import EventHub
from agent.server.api.memory_servicer import MemoryServicer
from agent.server.api.model_servicer import ModelServicer
from agent.server.api.server import LOCAL, MEMORY_SERVICE, MODEL_SERVICE, Server
from agent.server.data.backups import Backups
from agent.server.data.identity import settle
from agent.server.loop.snapshot_keeper import SnapshotKeeper, SnapshotSettings
from agent.server.loop.thinner import Thinner
from agent.server.shared_lock import SharedLock
from agent.snapshots import SnapshotManifest, write_snapshot
from agent.teaching.limits import TeachingLimits
from agent.teaching.types import Answer, Example, Generated, LearnerDescription
from agent.wire.validation import FactRules
from continual.v1 import admin_pb2_grpc, memory_pb2_grpc, model_pb2_grpc
from memory_store.store import MemoryStore
from memory_store.vocabulary import LearnerState
from memory_store.writer import StoreThreads

MAX_TOKENS = 200


def byte_tokenizer(normalizer: Any = None) -> str:
    """A tokenizer of one token a byte, as the text of its `tokenizer.json`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=False, special=True)])
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return tokenizer.to_str()


class FakeLearner:
    """Answers everything with `says`, one character a piece; raises `error` if it has one."""

    def __init__(self) -> None:
        self.says = "Piano"
        self.error: Exception | None = None
        self.version = 3

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error

    async def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        self._fail()
        for piece in self.says[:max_new_tokens]:
            yield piece, self.version
        text = self.says[:max_new_tokens]
        yield Generated(text=text, finished=text == self.says), self.version

    async def score(self, question: str, answer: str) -> tuple[float, int, int]:
        self._fail()
        return -0.5, len(answer) + 1, self.version

    async def probe(self, example: Example, *, held: bool = True) -> tuple[list[Answer], int]:
        self._fail()
        right = example.answer == self.says
        answer = Answer(text=self.says, correct=right, log_probability=-0.25)
        return [answer] * (1 + len(example.correlated_questions)), self.version

    async def snapshot(self, folder: Path) -> tuple[int, int]:
        self._fail()
        manifest = made_snapshot(folder, self.version)
        return manifest.model_version, manifest.size

    async def export(self, folder: Path) -> int:
        self._fail()
        (folder / "model.safetensors").write_text(self.says)
        return self.version


class FakeView:
    """A learning loop that does nothing and is in whatever state it is told."""

    def __init__(self) -> None:
        self.learner: FakeLearner | None = FakeLearner()
        self.state = LearnerState.READY
        self.updates_to_replay = 0
        self.message = ""
        self.clean_up_problem = ""
        self.questions = SharedLock()
        self.memory = (1_500_000_000, 8_000_000_000)
        self.description: LearnerDescription | None = LearnerDescription(
            device="cpu",
            parameters=132_992,
            model_version=3,
            base_digest="d0",
            tokenizer=byte_tokenizer(),
            max_tokens=MAX_TOKENS,
            environment={},
        )

    async def current(self) -> FakeLearner:
        if self.learner is None:
            raise LearnerUnavailableError(f"the learner is {self.state}: try again in a moment")
        return self.learner


def made_snapshot(folder: Path, version: int) -> SnapshotManifest:
    """A snapshot of so many bytes as its version."""

    def save(file: Path) -> None:
        file.write_bytes(b"w" * version)

    return write_snapshot(
        folder,
        save,
        model_version=version,
        digest=f"digest-{version}",
        base_digest="d0",
        environment={},
    )


class Serving:
    """The parts of a running server, and stubs that speak to it.

    Attributes:
        accepted: how often the learning loop was told of a fact or an operation.
        snapshots: the folder of all snapshots; of them the newest is kept.
    """

    def __init__(
        self,
        path: Path,
        store: StoreThreads,
        hub: EventHub,
        listen: str,
        security: Security,
        interceptors: Sequence[Any],
        backups: Backups,
    ) -> None:
        self.backups = backups
        self.path, self.store, self.hub = path, store, hub
        self.view = FakeView()
        self.limits = TeachingLimits(largest_learning_rate=5e-3, most_steps=100, gated=True)
        self.rules = FactRules(byte_tokenizer(), MAX_TOKENS, limits=self.limits)
        self.rules_error: Exception | None = None
        self.accepted = 0
        self.snapshots = path.parent / "snapshots"
        settings = SnapshotSettings(folder=self.snapshots, keep_last=1, keep_days=0)
        self.keeper = SnapshotKeeper(settings, lambda: cast(Any, self.view.learner))
        self.server = Server(
            listen,
            MemoryServicer(store, self._rules_now, hub, self._on_accepted),
            ModelServicer(store, self.view, self.keeper, "fake-model", self.limits),
            self.admin_servicer(),
            security,
            interceptors,
        )
        # Their types are incomplete for channels, and do not tell asyncio's stubs from the other.
        self.channel: Any
        self.memory: Any
        self.model: Any
        self.admin: Any

    def _rules_now(self) -> FactRules:
        if self.rules_error is not None:
            raise self.rules_error
        return self.rules

    def _on_accepted(self) -> None:
        self.accepted += 1

    def admin_servicer(self) -> AdminServicer:
        return AdminServicer(
            self.store,
            self.keeper,
            self.snapshots,
            self.view.current,
            self._on_accepted,
            self.backups,
            Thinner(self.store, keep_events=1000).compact,
        )

    def connect(self) -> None:
        self.channel = grpc.aio.insecure_channel(self.server.address)
        self.memory = memory_pb2_grpc.MemoryServiceStub(self.channel)
        self.model = model_pb2_grpc.ModelServiceStub(self.channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(self.channel)

    @asynccontextmanager
    async def writer_held(self) -> AsyncIterator[None]:
        """Nothing is committed inside."""
        held, go_on = threading.Event(), threading.Event()

        def hold(store: MemoryStore) -> None:
            held.set()
            assert go_on.wait(10)

        holder = asyncio.create_task(self.store.write(hold))
        await asyncio.to_thread(held.wait)
        try:
            yield
        finally:
            go_on.set()
            await holder

    def stored_questions(self) -> list[str]:
        """What is on disk, seen through a connection of its own."""
        with MemoryStore.open(self.path, read_only=True) as store:
            return [fact.question for fact in store.facts(limit=10_000)]


@asynccontextmanager
async def serving(
    folder: Path,
    prepare: Callable[[MemoryStore], object] | None = None,
    security: Security = LOCAL,
    listen: str = "127.0.0.1:0",
    interceptors: Sequence[Any] = (),
    max_queued: int | None = None,
) -> AsyncIterator[Serving]:
    """A server, on a free port if none is named; `prepare` fills the store before it starts.

    Its own stubs speak plain text and show no token: where that is not enough, use a client.
    """
    path = folder / "data" / "memory.db"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    hub = EventHub()
    store = await StoreThreads.open(path, on_commit=hub.stored, max_queued=max_queued)
    try:
        if prepare is not None:
            await store.write(prepare)
        memory_id = await store.write(partial(settle, data=path.parent))
        backups = Backups(path.parent, memory_id, store)
        parts = Serving(path, store, hub, listen, security, interceptors, backups)
        await parts.server.start()
        for service in (MEMORY_SERVICE, MODEL_SERVICE):
            parts.server.set_serving(service, True)
        parts.connect()
        try:
            yield parts
        finally:
            hub.close()
            await parts.channel.close()
            await parts.server.stop(5)
    finally:
        await store.close()


def recovering(parts: Serving) -> None:
    """Puts the learning loop where it is before the weights are ready."""
    parts.view.learner, parts.view.state = None, LearnerState.RECOVERING
    parts.server.set_serving(MODEL_SERVICE, False)


LEARNER_GONE = LearnerUnavailableError("the learner is gone")
