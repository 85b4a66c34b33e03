"""`AdminService`: versions, snapshots and copies, for operators."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import grpc

from agent.config import SNAPSHOTS
from agent.errors import InvalidFactError
from agent.server.api.exports import write_readme
from agent.server.api.held_facts import held_facts
from agent.server.data.backups import UNFINISHED, Backups, new_folder_path
from agent.snapshots import SnapshotManifest, folder_of
from agent.teaching.types import GENERAL_TEXT
from agent.wire import codec
from agent.wire.mapper import NotSent, pair
from agent.wire.message_size import Page, page_size
from continual.v1 import admin_pb2 as pb
from continual.v1 import admin_pb2_grpc
from memory_store import meta, operations, undo
from memory_store.places import record_place
from memory_store.vocabulary import Compaction, PlaceKind
from memory_store.writer import StoreThreads

Context = grpc.aio.ServicerContext[Any, Any]


class Snapshots(Protocol):
    """Writes, lists and prunes snapshots; see `SnapshotKeeper`."""

    async def create(self) -> SnapshotManifest:
        """Writes a snapshot now."""
        ...

    def listed(self) -> Iterable[SnapshotManifest]:
        """Returns all snapshots, newest first."""
        ...

    async def verify(self) -> list[tuple[int, str]]:
        """Returns the version of each snapshot and what is wrong with it."""
        ...

    async def prune(self) -> list[int]:
        """Removes snapshots that the rule does not keep; returns their versions."""
        ...


class ExportingLearner(Protocol):
    """Writes the served weights; see `LearnerClient`."""

    async def export(self, folder: Path) -> int:
        """Writes a Hugging Face checkpoint; returns its version."""
        ...


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Serves the calls of operators.

    Args:
        store: the memory.
        snapshots: the snapshots of the memory.
        snapshots_folder: their folder.
        current: returns the learner that serves.
        requested: called after each new operation, and when learning resumes.
        backups: writes backups of the memory.
        compact: removes old probes and events, and frees disk space.
    """

    def __init__(
        self,
        store: StoreThreads,
        snapshots: Snapshots,
        snapshots_folder: Path,
        current: Callable[[], Awaitable[ExportingLearner]],
        requested: Callable[[], None],
        backups: Backups,
        compact: Callable[[], Awaitable[Compaction]],
    ) -> None:
        self._store = store
        self._snapshots = snapshots
        self._snapshots_folder = snapshots_folder
        self._current = current
        self._requested = requested
        self._backups = backups
        self._compact = compact

    async def Rollback(self, request: pb.RollbackRequest, context: Context) -> pb.RollbackResponse:
        operation = await self._store.write(
            partial(undo.request_rollback, to_version=request.to_version)
        )
        self._requested()
        return pb.RollbackResponse(operation=codec.encode_operation(operation))

    async def GetOperation(
        self, request: pb.GetOperationRequest, context: Context
    ) -> pb.GetOperationResponse:
        operation = await self._store.read(partial(operations.get, operation_id=request.id))
        return pb.GetOperationResponse(operation=codec.encode_operation(operation))

    async def ListOperations(
        self, request: pb.ListOperationsRequest, context: Context
    ) -> pb.ListOperationsResponse:
        page = Page(codec.encode_operation)
        _, token = await self._store.read(
            partial(
                operations.page,
                page_size=page_size(request.page_size),
                page_token=request.page_token,
                fits=page.fits,
            )
        )
        return pb.ListOperationsResponse(operations=page.messages, next_page_token=token)

    async def CancelOperation(
        self, request: pb.CancelOperationRequest, context: Context
    ) -> pb.CancelOperationResponse:
        operation = await self._store.write(partial(undo.cancel_operation, operation_id=request.id))
        self._requested()
        return pb.CancelOperationResponse(operation=codec.encode_operation(operation))

    async def CreateSnapshot(
        self, request: pb.CreateSnapshotRequest, context: Context
    ) -> pb.CreateSnapshotResponse:
        manifest = await self._snapshots.create()
        return pb.CreateSnapshotResponse(snapshot=_encode_manifest(manifest))

    async def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: Context
    ) -> pb.ListSnapshotsResponse:
        listed = await asyncio.to_thread(lambda: list(self._snapshots.listed()))
        return pb.ListSnapshotsResponse(snapshots=map(_encode_manifest, listed))

    async def VerifySnapshots(
        self, request: pb.VerifySnapshotsRequest, context: Context
    ) -> pb.VerifySnapshotsResponse:
        verdicts = await self._snapshots.verify()
        return pb.VerifySnapshotsResponse(
            verdicts=[
                pb.VerifySnapshotsResponse.Verdict(model_version=version, error=error)
                for version, error in verdicts
            ]
        )

    async def PruneSnapshots(
        self, request: pb.PruneSnapshotsRequest, context: Context
    ) -> pb.PruneSnapshotsResponse:
        removed = await self._snapshots.prune()
        return pb.PruneSnapshotsResponse(removed_versions=removed)

    async def Export(self, request: pb.ExportRequest, context: Context) -> pb.ExportResponse:
        learner = await self._current()
        async with _new_folder(request.folder) as folder:
            version = await learner.export(folder)
            facts = [fact async for fact in held_facts(self._store)]
            await asyncio.to_thread(write_readme, folder, version, facts)
        await self._store.write(
            lambda store: record_place(store, PlaceKind.EXPORT, request.folder, version)
        )
        return pb.ExportResponse(model_version=version)

    async def Backup(self, request: pb.BackupRequest, context: Context) -> pb.BackupResponse:
        version = await self._backups.write(Path(request.folder), self._copy_files)
        return pb.BackupResponse(model_version=version)

    async def Compact(self, request: pb.CompactRequest, context: Context) -> pb.CompactResponse:
        return codec.COMPACTION.encode(await self._compact())

    async def PauseLearning(
        self, request: pb.PauseLearningRequest, context: Context
    ) -> pb.PauseLearningResponse:
        await self._store.write(lambda store: meta.pause_learning(store.connection, paused=True))
        return pb.PauseLearningResponse()

    async def ResumeLearning(
        self, request: pb.ResumeLearningRequest, context: Context
    ) -> pb.ResumeLearningResponse:
        await self._store.write(lambda store: meta.pause_learning(store.connection, paused=False))
        self._requested()
        return pb.ResumeLearningResponse()

    def _copy_files(self, target: Path) -> None:
        # After the database: snapshots of versions that it does not have are ignored.
        self._copy_snapshots(target / SNAPSHOTS)
        # Replay needs the general text that guarded updates.
        general_text = self._snapshots_folder.parent / GENERAL_TEXT
        if general_text.is_dir():
            ignored = shutil.ignore_patterns(".*")
            shutil.copytree(general_text, target / GENERAL_TEXT, ignore=ignored)

    def _copy_snapshots(self, target: Path) -> None:
        for manifest in self._snapshots.listed():
            folder = folder_of(self._snapshots_folder, manifest.model_version)
            try:
                shutil.copytree(folder, target / folder.name)
            except (OSError, shutil.Error):
                shutil.rmtree(target / folder.name, ignore_errors=True)
                if folder.exists():
                    raise
                # Pruned in the meantime, so there is a newer one.


@asynccontextmanager
async def _new_folder(path: str) -> AsyncIterator[Path]:
    """Makes a folder that gets its name only when it is complete.

    Raises:
        InvalidFactError: the path is relative or already exists.
    """
    final = await asyncio.to_thread(new_folder_path, Path(path))
    unfinished = final.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    try:
        unfinished.mkdir(mode=0o700, parents=True)
        yield unfinished
        unfinished.rename(final)
    except OSError as error:
        raise InvalidFactError(
            "folder", f"cannot write {final}: {error.strerror or error}"
        ) from error
    finally:
        await asyncio.to_thread(shutil.rmtree, unfinished, ignore_errors=True)


_encode_manifest = pair(
    SnapshotManifest,
    pb.Snapshot,
    {
        "size": "size_bytes",
        "created_at": "create_time",
        **dict.fromkeys(("base_digest", "sha256", "environment"), NotSent()),
    },
).encode
