"""What the documentation promises for each phase of a server's life (`docs/how-to/operate.md`).

The whole server in this process, without torch: the test decides when its learner starts, replays,
learns and dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.client.async_client import AsyncClient
from agent.config import ServeSettings
from agent.errors import LearnerError, LearnerUnavailableError, ModelError, ServerUnreachableError
from agent.server import app
from agent.server.api.server import MEMORY_SERVICE, MODEL_SERVICE
from agent.teaching.types import ReplayedUpdate
from agent.wire.error_details import RequestError
from memory_store.vocabulary import Event, EventKind, FactState
from tests.integration.servers import contents
from tests.loop.fake_learner import FakeLearner, Machine

NOT_READY = ("starting", "recovering", "down")


class HeldLearner(FakeLearner):
    """Replays when the machine lets it."""

    async def replay(
        self, updates: Iterable[ReplayedUpdate], accept_drift: bool = False
    ) -> AsyncIterator[tuple[int, str]]:
        await self._machine.may_replay.wait()  # type: ignore[attr-defined]
        async for reached in super().replay(updates, accept_drift):
            yield reached


class HeldMachine(Machine):
    """A machine whose learners also wait before they start and before they replay."""

    def __init__(self) -> None:
        super().__init__()
        self.may_start, self.may_replay = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def process(self, arguments: object, **_: object) -> AsyncIterator[FakeLearner]:
        """In the place of `learner_process`."""
        await self.may_start.wait()
        if self.faults["start"]:
            raise self.faults["start"].pop(0)
        learner = HeldLearner(self)
        self.learners.append(learner)
        yield learner

    def release(self) -> None:
        self.may_start.set()
        self.may_replay.set()
        self.may_learn.set()


class Life:
    """A server that runs in this process, and its client."""

    def __init__(self, machine: HeldMachine, client: AsyncClient, data: Path) -> None:
        self.machine, self.client, self.data = machine, client, data
        self.stop: asyncio.Future[None]
        self.serving: asyncio.Task[None]

    async def until(self, learner: str, updates_to_replay: int = 0) -> None:
        async with asyncio.timeout(30):
            while True:
                status = await self.client.status()
                if (status.learner, status.updates_to_replay) == (learner, updates_to_replay):
                    return
                await asyncio.sleep(0.01)

    async def health(self, service: str) -> bool:
        check: Any = health_pb2_grpc.HealthStub(self.client._connection._channel).Check
        answer = await check(health_pb2.HealthCheckRequest(service=service))
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture
def machine() -> HeldMachine:
    return HeldMachine()


@asynccontextmanager
async def living(
    machine: HeldMachine, data: Path, monkeypatch: pytest.MonkeyPatch, model: str = "tiny"
) -> AsyncIterator[Life]:
    monkeypatch.setattr(app, "learner_process", machine.process)
    stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @contextmanager
    def stop_signal() -> Iterator[asyncio.Future[None]]:
        yield stop

    monkeypatch.setattr(app, "_stop_signal", stop_signal)
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settings = ServeSettings(listen="127.0.0.1:0", data=data, model=model, review_seconds=0)
    serving = asyncio.create_task(app.serve(settings, listening.set_result))
    address = await asyncio.wait_for(listening, 30)
    async with AsyncClient(address) as client:
        life = Life(machine, client, data)
        life.stop, life.serving = stop, serving
        try:
            yield life
        finally:
            machine.release()
            if not stop.done():
                stop.set_result(None)
            await asyncio.wait([serving], timeout=30)
    if serving.exception() is not None and not isinstance(serving.exception(), ModelError):
        raise serving.exception()  # type: ignore[misc]


@asynccontextmanager
async def in_phase(
    phase: str, machine: HeldMachine, data: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Life]:
    """A server that has learned the fact `the-sky`, and is in a phase of its next life."""
    machine.may_start.set()
    async with living(machine, data, monkeypatch) as life:
        await life.client.teach("Sky?", "right", fact_id="the-sky")
        await life.client.wait(["the-sky"])
    for snapshot in (data / "snapshots").glob("*/*"):
        snapshot.unlink()  # else there is nothing to replay
    machine.may_replay.clear()
    if phase == "starting":
        machine.may_start.clear()
    elif phase == "ready":
        machine.may_replay.set()
    async with living(machine, data, monkeypatch) as life:
        if phase == "down":
            machine.may_replay.set()
            await life.until("ready")
            machine.faults["start"] = [LearnerUnavailableError("exit code 7")] * 1000
            machine.learners[-1].die(7)
        await life.until(phase, updates_to_replay=1 if phase == "recovering" else 0)
        yield life
        machine.faults["start"].clear()


PHASES = pytest.mark.parametrize("phase", [*NOT_READY, "ready"])


@pytest.fixture
async def life(
    phase: str, machine: HeldMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Life]:
    async with in_phase(phase, machine, tmp_path / "data", monkeypatch) as life:
        yield life


@PHASES
async def test_facts_are_accepted_and_learned_in_the_end(life: Life, phase: str) -> None:
    assert (await life.client.wait_accepting(0)).learner == phase
    accepted = await life.client.teach("Gem?", "right", fact_id="the-gem")
    assert accepted.created
    assert [fact.id for fact in contents(life.data).facts] == ["the-sky", "the-gem"]  # durable
    life.machine.release()
    life.machine.faults["start"].clear()
    assert (await life.client.wait(["the-gem"]))["the-gem"].state is FactState.LEARNED


@PHASES
async def test_questions_are_answered_if_it_is_ready_and_else_refused(
    life: Life, phase: str
) -> None:
    if phase == "ready":
        await life.client.wait_ready(0)
        assert (await life.client.ask("Sky?")).answer == "right"
        return
    for call in (life.client.ask("Sky?"), life.client.score("Sky?", "right")):
        with pytest.raises(RequestError, match=f"the learner is {phase}.*agent status") as refused:
            await call
        assert refused.value.code is grpc.StatusCode.UNAVAILABLE
        assert refused.value.reason == "LEARNER_UNAVAILABLE"
        assert refused.value.retry_seconds is not None
    with pytest.raises(LearnerError, match=f"the learner is {phase}"):
        await life.client.wait_ready(0)


@PHASES
async def test_status_and_health_say_which_phase_it_is(life: Life, phase: str) -> None:
    status = await life.client.status()
    assert (status.learner, status.model_version) == (phase, 1)
    if phase == "down":
        assert "code 7; starting it again in " in status.learner_message
    assert status.updates_to_replay == (1 if phase == "recovering" else 0)
    ready = phase == "ready"
    services = (MEMORY_SERVICE, MODEL_SERVICE, "")
    assert [await life.health(service) for service in services] == [True, ready, ready]


@PHASES
async def test_facts_are_shown_and_watched(life: Life, phase: str) -> None:
    fact, updates, probes = await life.client.history("the-sky")
    assert (fact.state, len(updates)) == (FactState.LEARNED, 1)
    assert probes
    seen = asyncio.create_task(_first_event(life.client))
    await life.client.teach("Gem?", "right", fact_id="the-gem")
    event = await asyncio.wait_for(seen, 30)
    assert (event.kind, event.fact_id) == (EventKind.ACCEPTED, "the-gem")


async def _first_event(client: AsyncClient) -> Event:
    # From the beginning, so that it does not matter which comes first, the event or the watcher.
    async for event in client.watch(0, ["the-gem"]):
        return event
    raise AssertionError("the server ended")


@PHASES
async def test_a_request_to_forget_is_durable_and_carried_out_in_the_end(
    life: Life, phase: str
) -> None:
    operation, _ = await life.client.forget("the-sky")
    assert (await life.client.operation(operation.id)).kind == "forget"
    life.machine.release()
    life.machine.faults["start"].clear()
    done = await life.client.wait_operation(operation.id)
    assert done.state == "done"
    assert (await life.client.fact("the-sky")).state is FactState.FORGOTTEN


async def test_draining_takes_nothing_on_and_finishes_what_it_does(
    machine: HeldMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.release()
    machine.may_learn.clear()
    async with living(machine, tmp_path / "data", monkeypatch) as life:
        await life.client.teach("Sky?", "right", fact_id="the-sky")
        async with asyncio.timeout(30):
            async for event in life.client.watch(0):
                if event.step is not None or event.kind is EventKind.LEARNING:
                    break
        watching = asyncio.create_task(_until_it_ends(life.client))
        await life.client.status()  # the watcher's call is on its way before this one
        life.stop.set_result(None)
        await asyncio.wait_for(watching, 30)  # event streams end, without an error
        with pytest.raises((RequestError, ServerUnreachableError)) as refused:
            await life.client.teach("Gem?", "right")
        if isinstance(refused.value, RequestError):  # else the port is closed already
            assert refused.value.reason in ("STOPPING", "")
        assert not life.serving.done()  # it waits for the update
        machine.may_learn.set()
        await asyncio.wait_for(life.serving, 30)
    [fact] = contents(tmp_path / "data").facts
    assert (fact.id, fact.state) == ("the-sky", FactState.LEARNED)


async def _until_it_ends(client: AsyncClient) -> None:
    async for _ in client.watch(0):
        pass


async def test_a_model_that_cannot_be_loaded_ends_it_and_what_was_accepted_stays(
    machine: HeldMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.faults["start"] = [ModelError("no such model")]
    async with living(machine, tmp_path / "data", monkeypatch) as life:
        await life.client.teach("Sky?", "right", fact_id="the-sky")
        machine.may_start.set()
        await asyncio.wait([life.serving], timeout=30)
        assert isinstance(life.serving.exception(), ModelError)
    [fact] = contents(tmp_path / "data").facts
    assert (fact.id, fact.state) == ("the-sky", FactState.QUEUED)


async def test_a_memory_of_another_model_accepts_nothing_until_that_is_known_to_be_the_same(
    machine: HeldMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.release()
    async with living(machine, tmp_path / "data", monkeypatch) as life:
        await life.until("ready")
    machine.may_start.clear()
    (tmp_path / "moved").mkdir()
    moved = str(tmp_path / "moved")
    async with living(machine, tmp_path / "data", monkeypatch, model=moved) as life:
        assert not await life.health(MEMORY_SERVICE)
        with pytest.raises(RequestError, match="belongs to the model tiny") as refused:
            await life.client.teach("Sky?", "right")
        assert refused.value.reason == "LEARNER_UNAVAILABLE"
        with pytest.raises(LearnerError, match="the learner is starting"):
            await life.client.wait_accepting(0)
        assert contents(tmp_path / "data").facts == []
        machine.may_start.set()
        await life.client.wait_accepting()
        assert (await life.client.teach("Sky?", "right")).created
