"""When snapshots are written, and which are kept."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from agent import snapshots
from agent.errors import LearnerUnavailableError, LearningFailedError, SnapshotError
from agent.snapshots import SnapshotManifest
from agent.teaching.learner_protocol import Learner
from memory_store import ledger, meta
from memory_store.vocabulary import Update
from memory_store.writer import StoreThreads

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSettings:
    """When snapshots are written, and which are kept.

    Attributes:
        folder: of all snapshots.
        every_updates: updates after which one is written; 0 for none.
        every_seconds: seconds of learning after which one is written. Learning takes no less than
            replaying, so this bounds how long a restart replays. 0 for none.
        keep_last: how many of the newest are kept.
        keep_days: for how many days the newest of the day is kept.
        overdue_seconds: an update that no snapshot holds for longer is reported; 0 for never.
    """

    folder: Path
    every_updates: int = 100
    every_seconds: float = 20.0
    keep_last: int = 3
    keep_days: int = 7
    overdue_seconds: float = 0.0


# Digests of the weights of some versions, as recorded; without versions that the ledger lacks.
History = Callable[[Sequence[int]], Awaitable[Mapping[int, str]]]


def recorded_in(store: StoreThreads) -> History:
    """The history in a memory's ledger."""

    async def recorded(versions: Sequence[int]) -> Mapping[int, str]:
        updates = await store.read(lambda store: ledger.at_versions(store.connection, versions))
        bound = await store.read(lambda store: meta.bindings(store.connection))
        base = {0: bound["base_digest"]} if "base_digest" in bound else {}
        return base | {update.model_version: update.digest_after for update in updates}

    return recorded


class SnapshotKeeper:
    """Writes snapshots while learning goes on, one at a time, and prunes them."""

    def __init__(
        self,
        settings: SnapshotSettings,
        learner: Callable[[], Learner | None],
        now: Callable[[], float] = time.monotonic,
        recorded: History | None = None,
    ) -> None:
        """Prepares; `look` first, if `recorded` is given.

        Args:
            settings: see there.
            learner: the one that serves, or None.
            now: a clock, in seconds.
            recorded: which weights the ledger has. Snapshots of other weights do not count: if the
                database was restored from a backup, those of its lost future have higher versions.
                None: all count.
        """
        self._recorded = recorded
        self._settings = settings
        self._learner = learner
        self._now = now
        self._waiting_since: float | None = None  # the first update that no snapshot holds
        self._failure = ""
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._served = 0
        # What a start replayed, the next would replay again: the first update brings a snapshot.
        self._seconds = settings.every_seconds
        self._newest = _newest(settings.folder)

    async def look(self) -> None:
        """Finds the newest snapshot of this history; once, before anything is learned."""
        own, others = await self._by_history()
        self._newest = max((manifest.model_version for manifest in own), default=0)
        if others:
            logger.warning(
                "snapshots of another history than the ledger's are neither used nor pruned:"
                " versions %s",
                ", ".join(str(manifest.model_version) for manifest in others),
            )

    def updated(self, update: Update) -> None:
        """An update is served: begins a snapshot if it is time for one."""
        self._served = update.model_version
        if self._waiting_since is None:
            self._waiting_since = self._now()
        self._seconds += update.seconds
        many = 0 < self._settings.every_updates <= self._served - self._newest
        long = 0 < self._settings.every_seconds <= self._seconds
        if (many or long) and not self._writing.locked():
            self._seconds = 0.0
            # A story of its own, not that of the fact whose update it follows.
            task = asyncio.create_task(self._create_quietly(), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @property
    def newest(self) -> int:
        """The newest version that a snapshot holds; 0 if there is none."""
        return self._newest

    def overdue(self) -> str:
        """Why a snapshot is overdue, for people; empty if none is."""
        if self._waiting_since is None or self._served <= self._newest:
            return ""
        if self._failure:
            return f"the last one failed: {self._failure}"
        waited = self._now() - self._waiting_since
        if not 0 < self._settings.overdue_seconds < waited:
            return ""
        return f"version {self._served} waits, the newest is of {self._newest}"

    async def tick(self) -> None:
        """Writes one if anything was learned since the last."""
        if self._served > self._newest:
            await self._create_quietly()

    async def hold(self, version: int, digest: str) -> None:
        """Writes a snapshot of the served version unless a readable one of it exists.

        Called before the learner ends: the next start, of whatever release, then has the head
        without replaying anything. A failure is logged, and only costs that start a replay.

        Args:
            version: of the ledger, served now; 0 needs no snapshot.
            digest: of its weights as recorded. A snapshot of another history is replaced.
        """
        await self._to_the_end(self._hold(version, digest))

    async def _hold(self, version: int, digest: str) -> None:
        async with self._writing:  # the one being written may be it
            if version and not snapshots.is_snapshot_of(self._settings.folder, version, digest):
                await self._quietly(self._create_alone())

    async def create(self) -> SnapshotManifest:
        """Writes a snapshot of what is served, and prunes.

        Raises:
            LearnerUnavailableError: there is no learner now.
            SnapshotError: it cannot be written.
        """
        return await self._to_the_end(self._create())

    async def _create(self) -> SnapshotManifest:
        async with self._writing:
            return await self._create_alone()

    async def _create_alone(self) -> SnapshotManifest:
        """As `create`, for who holds `_writing`."""
        learner = self._learner()
        if learner is None:
            raise LearnerUnavailableError("the learner is not ready: try again in a moment")
        version, size = await learner.snapshot(self._settings.folder)
        self._newest = max(self._newest, version)
        self._failure = ""
        # What was served while it was written waits from now on.
        self._waiting_since = self._now() if self._served > version else None
        await self._prune_alone(written=version)
        logger.info("snapshot of version %d, %.0f MB", version, size / 1e6)
        return snapshots.read_manifest(snapshots.folder_of(self._settings.folder, version))

    async def prune(self) -> list[int]:
        """Removes what the rule does not keep; returns their versions.

        Raises:
            OSError: one cannot be removed.
        """
        return await self._to_the_end(self._prune())

    async def _prune(self) -> list[int]:
        async with self._writing:
            return await self._prune_alone()

    async def _prune_alone(self, written: int = 0) -> list[int]:
        """As `prune`, for who holds `_writing`; the one just `written` stays."""
        own, _ = await self._by_history()
        kept = kept_versions(
            [(m.model_version, datetime.fromisoformat(m.created_at)) for m in own],
            self._settings.keep_last,
            self._settings.keep_days,
        )
        kept.add(written)
        unneeded = [m.model_version for m in own if m.model_version not in kept]
        return await asyncio.to_thread(self._remove, unneeded)

    async def _by_history(self) -> tuple[list[SnapshotManifest], list[SnapshotManifest]]:
        """The readable snapshots of this history, and those of others; newest first."""
        listed = await asyncio.to_thread(lambda: list(self.listed()))
        if self._recorded is None:
            return listed, []
        digests = await self._recorded([manifest.model_version for manifest in listed])
        own = [m for m in listed if digests.get(m.model_version) == m.digest]
        return own, [manifest for manifest in listed if manifest not in own]

    def _remove(self, versions: Iterable[int]) -> list[int]:
        """Removes snapshots; returns the versions that were there."""
        removed = []
        for version in versions:
            folder = snapshots.folder_of(self._settings.folder, version)
            if folder.exists():
                shutil.rmtree(folder)
                removed.append(version)
        return removed

    async def keep_only(self, versions: Collection[int]) -> None:
        """Removes the snapshots of all other versions, after a fact that they hold was forgotten.

        Also those that cannot be read, or are of another history: they may hold it. What is being
        written is waited for: begun before the head moved, it holds the fact, and it would be
        renamed into place after all others were removed.

        Raises:
            OSError: one cannot be removed.
        """
        await self._to_the_end(self._keep_only(versions))

    async def _keep_only(self, versions: Collection[int]) -> None:
        async with self._writing:
            own, _ = await self._by_history()
            kept = {m.model_version for m in own if m.model_version in versions}
            await asyncio.to_thread(snapshots.remove_others, self._settings.folder, kept)
            self._newest = max(kept, default=0)

    def listed(self) -> Iterable[SnapshotManifest]:
        """The manifests of all readable snapshots, newest first."""
        for _, folder in snapshots.snapshot_folders(self._settings.folder):
            try:
                yield snapshots.read_manifest(folder)
            except SnapshotError as error:
                logger.error("%s", error)

    async def verify(self) -> list[tuple[int, str]]:
        """Version and what is wrong (empty if nothing) of each snapshot, newest first."""
        _, others = await self._by_history()
        of_others = {manifest.model_version for manifest in others}
        return await asyncio.to_thread(self._verified, of_others)

    def _verified(self, of_others: Collection[int]) -> list[tuple[int, str]]:
        found = []
        for version, folder in snapshots.snapshot_folders(self._settings.folder):
            try:
                snapshots.verify_snapshot(folder)
                problem = ""
                if version in of_others:
                    problem = f"the snapshot {folder} is of another history than the ledger's"
                found.append((version, problem))
            except SnapshotError as error:
                found.append((version, str(error)))
        return found

    async def finish(self) -> None:
        """Waits for what is being written."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for work that goes on if the caller is cancelled; `finish` waits for it then.

        The learner, or a thread, would go on with it anyway. It holds `_writing` until the end, so
        that nobody else writes or removes snapshots.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # was raised for whoever waited; nobody does after a cancellation

    async def _create_quietly(self) -> None:
        await self._quietly(self.create())

    async def _quietly(self, creating: Awaitable[SnapshotManifest]) -> None:
        try:
            await creating
        except (LearnerUnavailableError, LearningFailedError, SnapshotError, OSError) as error:
            self._failure = str(error)
            logger.warning("no snapshot: %s", error)


def _newest(folder: Path) -> int:
    return max((version for version, _ in snapshots.snapshot_folders(folder)), default=0)


def kept_versions(
    dated: Iterable[tuple[int, datetime]], keep_last: int, keep_days: int
) -> set[int]:
    """The versions that the rule keeps: the newest ones, and the newest of each recent day.

    Args:
        dated: version and time of each snapshot.
        keep_last: how many of the newest.
        keep_days: how many days, counted from the newest snapshot, have one kept.
    """
    newest_first = sorted(dated, reverse=True)
    kept = {version for version, _ in newest_first[:keep_last]}
    days: list[object] = []
    for version, created_at in newest_first:
        day = created_at.date()
        if day not in days and len(days) < keep_days:
            days.append(day)
            kept.add(version)
    return kept
