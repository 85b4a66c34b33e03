"""The composition root of the server: makes the parts, connects them, runs them, ends them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from agent.config import DATABASE, SNAPSHOT_MINUTES, SNAPSHOT_UPDATES, SNAPSHOTS, ServeSettings
from agent.errors import ModelNotFoundError
from agent.models import catalog
from agent.server.access.transport import require_free, require_safe_listen
from agent.server.api.admin_servicer import AdminServicer
from agent.server.api.events import EventHub
from agent.server.api.memory_servicer import MemoryServicer
from agent.server.api.model_servicer import ModelServicer
from agent.server.api.provisional_checks import ProvisionalChecks
from agent.server.api.server import (
    ADMIN_SERVICE,
    MEMORY_SERVICE,
    MODEL_SERVICE,
    HealthServer,
    Server,
)
from agent.server.data.backups import Backups, newest_backup
from agent.server.data.file_systems import require_local
from agent.server.data.folder import held, make_private
from agent.server.data.identity import claim_snapshots, require_own_files, settle
from agent.server.data.upgrade import log_standing
from agent.server.ending_threads import use_ending_threads
from agent.server.learner_link.heartbeat import Limits
from agent.server.learner_link.process import learner_process
from agent.server.learner_link.socket_folder import require_socket_folder
from agent.server.loop.learning_loop import LearningLoop
from agent.server.loop.rate_predictor import RatePredicting
from agent.server.loop.serving import Hooks, LoopSettings
from agent.server.loop.snapshot_keeper import SnapshotKeeper, SnapshotSettings, recorded_in
from agent.server.loop.thinner import Thinner
from agent.server.loop.ticks import RetentionAudit, Ticks
from agent.server.observers import Observers, observing
from agent.snapshots import remove_unfinished
from agent.teaching.types import GENERAL_TEXT
from memory_store import meta
from memory_store.errors import StoreFailedError
from memory_store.schema_copies import remove_outdated
from memory_store.vocabulary import LearnerState, Update
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)

# For calls that are still running at the end. After these and the drain, the learner has 10 s to
# end.
STOP_GRACE_SECONDS = 5.0
# Between two looks at the learner's memory.
MEMORY_SECONDS = 5.0
# For work in threads at the very end; after it the process ends without them (H2).
THREADS_SECONDS = 1.0
# After an error of the disk: SQLite may continue after a failed fsync, so we must not.
DISK_FAILED_EXIT_CODE = 74


async def nothing_to_fetch() -> None:
    """For a model that is on this machine, or that the learner may fetch unseen."""


async def serve(
    settings: ServeSettings,
    on_start: Callable[[str], None],
    fetch: Callable[[], Awaitable[None]] = nothing_to_fetch,
) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends it at once.

    Facts are accepted as soon as the server listens. The model is fetched and loaded after that: if
    it cannot be, what was accepted stays queued.

    Args:
        settings: as given by the operator.
        on_start: called with the address once the server listens; the model may still be loading.
        fetch: brings the model onto this machine. What it raises ends the server.

    Raises:
        ConfigError: the folder or the address is in use, or cannot be used.
        ModelError: there is no such model, or it cannot be loaded.
        DriftError: the ledger does not replay to the recorded weights.
        OtherModelError: the folder belongs to another model.
        StoreUnusableError: the database is damaged.
    """
    threads = use_ending_threads()
    require_safe_listen(settings.listen, settings.security)
    require_socket_folder()
    catalog.resolve(settings.model)
    require_local(settings.data, allow_network=settings.allow_network_filesystem)
    make_private(settings.data)
    with held(settings.data):
        require_free(settings.listen)  # before the database is made, or brought up to date
        require_own_files(settings.data)
        await asyncio.to_thread(log_standing, settings.data)
        hub = EventHub()
        try:
            store = await StoreThreads.open(
                settings.data / DATABASE,
                on_commit=hub.stored,
                on_fatal=partial(_disk_failed, settings.data),
                max_queued=settings.max_queued,
            )
        except StoreFailedError as error:
            await _refuse(settings, error, on_start)
            raise
        for outdated in remove_outdated(settings.data / DATABASE, datetime.now(UTC)):
            logger.info("removed %s: its time is over", outdated)
        try:
            memory_id = await store.write(partial(settle, data=settings.data))
            await asyncio.to_thread(claim_snapshots, settings.data, memory_id)
            backups = Backups(settings.data, memory_id, store)
            async with observing(settings, store) as seen:
                await _serve_with(settings, store, hub, seen, backups, on_start, fetch)
        finally:
            await store.close()
    threads.end(THREADS_SECONDS)


async def _refuse(
    settings: ServeSettings, error: StoreFailedError, on_start: Callable[[str], None]
) -> None:
    """Stays up, refusing, until stopped: a restart would only meet the damage again."""
    backup = newest_backup(settings.data)
    hint = f"The newest backup is {backup}." if backup else "No backup of it is known."
    logger.critical("%s %s Nothing is served.", error, hint)
    server = HealthServer(settings.listen, settings.security, refusal=error)
    await server.start()
    on_start(server.address)
    with _stop_signal() as stopped:
        await stopped
    await server.stop(STOP_GRACE_SECONDS)


async def _serve_with(
    settings: ServeSettings,
    store: StoreThreads,
    hub: EventHub,
    seen: Observers,
    backups: Backups,
    on_start: Callable[[str], None],
    fetch: Callable[[], Awaitable[None]],
) -> None:
    """Serves a memory that is open, from the first call to the last."""
    checks = ProvisionalChecks(
        catalog.resolve(settings.model),
        settings.policy,
        settings.limits,
        await _other_model(store, settings.model),
    )
    reading = asyncio.create_task(checks.read_files())
    remove_unfinished(settings.data / SNAPSHOTS)
    loop, keeper = _learning(settings, store, hub, seen, checks, backups)
    await keeper.look()
    thinner = Thinner(store, settings.keep_events)
    server = Server(
        settings.listen,
        MemoryServicer(store, checks.rules, hub, loop.wake, seen.tracing.traceparent, loop),
        ModelServicer(store, loop, keeper, settings.model, settings.limits, settings.max_questions),
        AdminServicer(
            *(store, keeper, settings.data / SNAPSHOTS, loop.current, loop.wake, backups),
            thinner.compact,
        ),
        settings.security,
        seen.interceptors,
    )
    ticks = _ticks(settings, store, loop, keeper, thinner)

    await server.start()
    on_start(server.address)
    ticks.start()
    learning = asyncio.create_task(_learn(loop, checks, reading, fetch))
    health = asyncio.create_task(_report_health(server, loop, checks))
    try:
        with _stop_signal() as stopped:
            # A server that cannot report its state must not go on either.
            await asyncio.wait([learning, health, stopped], return_when=asyncio.FIRST_COMPLETED)
            if health.done():
                health.result()  # raises why it ended
    finally:
        ticks.stop()
        health.cancel()
        hub.close()
        await _stop(server, loop, learning, keeper, settings.drain_seconds)


def _learning(
    settings: ServeSettings,
    store: StoreThreads,
    hub: EventHub,
    seen: Observers,
    checks: ProvisionalChecks,
    backups: Backups,
) -> tuple[LearningLoop, SnapshotKeeper]:
    """Makes the learning loop, and the keeper of the snapshots of its learner."""
    keeper = SnapshotKeeper(
        SnapshotSettings(
            folder=settings.data / SNAPSHOTS,
            every_updates=SNAPSHOT_UPDATES if settings.snapshot_seconds else 0,
            every_seconds=settings.snapshot_seconds,
            keep_last=settings.keep_snapshots,
            keep_days=settings.keep_snapshot_days,
            # Twice: a tick may have been missed because there was no learner.
            overdue_seconds=2 * _snapshot_tick_seconds(settings),
        ),
        lambda: loop.learner,
        recorded=recorded_in(store),
    )

    def on_update(update: Update) -> None:
        keeper.updated(update)
        seen.observer.updated(update)

    loop = LearningLoop(
        store,
        partial(
            learner_process,
            _learner_arguments(settings),
            observer=seen.observer,
            limits=Limits(
                silent_seconds=settings.silent_seconds, stalled_seconds=settings.stalled_seconds
            ),
        ),
        LoopSettings(
            model=settings.model,
            policy=settings.policy,
            gated=settings.limits.gated,
            snapshots=settings.data / SNAPSHOTS,
            accept_drift=settings.accept_drift,
            samples=settings.samples,
            max_attempts=settings.max_attempts,
        ),
        Hooks(
            publish=seen.publishing(hub.publish),
            on_update=on_update,
            on_loaded=checks.loaded,
            around=seen.observer.learning,
            hold_snapshot=keeper.hold,
            keep_only=keeper.keep_only,
        ),
        backups,
    )
    seen.clean_up_failures = lambda: loop.clean_up_failures
    seen.learner = lambda: (loop.state is LearnerState.READY, loop.updates_to_replay)
    return loop, keeper


def _learner_arguments(settings: ServeSettings) -> list[str]:
    arguments = ["--model", settings.model, "--device", settings.device]
    arguments += ["--log-format", settings.observability.log_format]
    arguments += ["--general-text", str(settings.data / GENERAL_TEXT)]
    if settings.threads is not None:
        arguments += ["--threads", str(settings.threads)]
    return arguments


def _snapshot_tick_seconds(settings: ServeSettings) -> float:
    return SNAPSHOT_MINUTES * 60 if settings.snapshot_seconds else 0.0


def _ticks(
    settings: ServeSettings,
    store: StoreThreads,
    loop: LearningLoop,
    keeper: SnapshotKeeper,
    thinner: Thinner,
) -> Ticks:
    """What the server does by itself, and how often; it has yet to be started."""
    ticks = Ticks()
    audit = RetentionAudit(store, lambda: loop.learner)
    ticks.every(settings.audit_minutes * 60, audit.tick)
    predicting = RatePredicting(store, loop.predict_by)
    ticks.every(settings.predict_minutes * 60, predicting.tick, at_start=True)
    ticks.every(_snapshot_tick_seconds(settings), keeper.tick)
    ticks.every(settings.thin_minutes * 60, thinner.tick)
    ticks.every(settings.review_seconds, loop.review_due)
    ticks.every(MEMORY_SECONDS, loop.look_at_memory, at_start=True)
    return ticks


async def _learn(
    loop: LearningLoop,
    checks: ProvisionalChecks,
    reading: asyncio.Task[None],
    fetch: Callable[[], Awaitable[None]],
) -> None:
    """Fetches the model, and learns until it is stopped."""
    loop.message = "fetching the model"
    await fetch()
    loop.message = ""
    # Again: it may have been fetched just now, and a learner may not come up for a while.
    await reading
    await checks.read_files()
    await loop.run()


async def _stop(
    server: Server,
    loop: LearningLoop,
    learning: asyncio.Task[None],
    keeper: SnapshotKeeper,
    drain_seconds: float,
) -> None:
    """Refuses new work, and lets calls, the current update and a last snapshot end."""
    stopping = asyncio.create_task(server.stop(min(STOP_GRACE_SECONDS, drain_seconds)))
    # Shielded: learning that is given up must not take the server's end with it.
    loop.stop(unasked=asyncio.shield(stopping))
    if loop.state is not LearnerState.READY:
        learning.cancel()  # nothing is claimed while the learner starts
    # Now too, not only at the end: the update in progress may outlast the drain.
    holding = asyncio.create_task(loop.snapshot_head())
    try:
        await _drained(learning, drain_seconds)
    finally:
        await asyncio.gather(holding, keeper.finish(), return_exceptions=True)
        await stopping


async def _drained(learning: asyncio.Task[None], seconds: float) -> None:
    """Waits until the current update is in the ledger; raises the reason if learning failed.

    Also until current questions are answered, which the server's end bounds. An update that takes
    too long is given up: nothing of it was served, and its fact is learned again.
    """
    with suppress(asyncio.CancelledError):
        await asyncio.wait([learning], timeout=seconds)
        if not learning.done():
            logger.warning("the current update did not end in %g s: it is given up", seconds)
            learning.cancel()
        await learning


async def _other_model(store: StoreThreads, model: str) -> str:
    """The model that the memory is bound to, if it goes by another name; else empty."""
    bound = (await store.read(lambda store: meta.bindings(store.connection))).get("model_name", "")
    if not bound or bound == model:
        return ""
    try:
        same = catalog.resolve(bound).location == catalog.resolve(model).location != ""
    except ModelNotFoundError:  # its folder was moved
        same = False
    return "" if same else bound


async def _report_health(server: Server, loop: LearningLoop, checks: ProvisionalChecks) -> None:
    """Facts can be taught before there is a learner to learn them; questions cannot be asked."""
    while True:
        # Cleared before the look, so that a change after it wakes us again.
        loop.state_changed.clear()
        teaching = checks.is_open
        asking = loop.state is LearnerState.READY
        server.set_serving(MEMORY_SERVICE, teaching)
        server.set_serving(MODEL_SERVICE, asking)
        server.set_serving(ADMIN_SERVICE, asking)
        server.set_serving("", teaching and asking)
        await loop.state_changed.wait()


@contextmanager
def _stop_signal() -> Iterator[asyncio.Future[None]]:
    """A future that is done at the first SIGTERM or SIGINT; the second ends the process."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[None] = loop.create_future()

    def on_signal(number: int) -> None:
        if stopped.done():
            # Safe at any moment: whatever was acknowledged is on disk.
            os._exit(128 + number)
        stopped.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    # The handlers stay: a second signal must work while the server drains.
    yield stopped


def _disk_failed(data: Path, error: StoreFailedError) -> None:
    logger.critical("%s The newest backup: %s.", error, newest_backup(data) or "none is known")
    os._exit(DISK_FAILED_EXIT_CODE)
