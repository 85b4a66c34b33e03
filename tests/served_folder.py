"""A data folder opened as the server opens it, without learner and port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from agent.config import DATABASE, SNAPSHOTS
from agent.server.data.backups import Backups
from agent.server.data.folder import held, make_private
from agent.server.data.identity import claim_snapshots, require_own_files, settle
from agent.server.loop.undo.erasure import remove_traces
from memory_store import undo
from memory_store.places import list_places
from memory_store.store import MemoryStore
from memory_store.vocabulary import NewFact, Phase, PlaceKind
from memory_store.writer import StoreThreads


class ServedFolder:
    """What a test does with it."""

    def __init__(self, data: Path, memory_id: str, store: StoreThreads) -> None:
        self.data, self.memory_id, self.store = data, memory_id, store
        self.backups = Backups(data, memory_id, store)

    async def teach(self, question: str, answer: str = "Piano") -> str:
        """Accepts a fact, which is never learned; its id."""
        new = NewFact(question=question, answer=answer)
        accepted = await self.store.write(partial(MemoryStore.teach, new=new))
        return accepted.fact.id

    async def back_up(self, target: Path, copy_files: Callable[[Path], None] | None = None) -> int:
        """A backup with one snapshot."""
        return await self.backups.write(target, copy_files or snapshot_in)

    async def erase(self, fact_id: str) -> str:
        """Erases a fact as the learning loop does; what is left, for people."""
        operation = await self.store.write(
            partial(undo.request_forget, fact_id=fact_id, erase=True)
        )
        if operation.phase is Phase.REQUESTED:
            await self.store.write(partial(undo.finish_if_not_held, operation_id=operation.id))
        left = await remove_traces(self.store, _keep_all, self.backups, operation)
        await self.store.write(partial(undo.close_forget, operation_id=operation.id, message=left))
        return left

    async def known_backups(self) -> list[str]:
        """The paths of the backups that it knows of."""
        places = await self.store.read(list_places)
        return [place.path for place in places if place.kind is PlaceKind.BACKUP]


@asynccontextmanager
async def served(data: Path) -> AsyncIterator[ServedFolder]:
    """Serves a folder, made if missing."""
    make_private(data)
    with held(data):
        require_own_files(data)
        store = await StoreThreads.open(data / DATABASE)
        try:
            memory_id = await store.write(partial(settle, data=data))
            claim_snapshots(data, memory_id)
            yield ServedFolder(data, memory_id, store)
        finally:
            await store.close()


def snapshot_in(folder: Path) -> None:
    """Writes something like a snapshot into a backup."""
    folder = folder / SNAPSHOTS / f"{7:012d}"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "manifest.json").write_text("{}")


async def _keep_all(versions: Collection[int]) -> None:
    pass


SNAPSHOT_FILES = (
    f"{SNAPSHOTS}/{7:012d}/manifest.json",
    f"{SNAPSHOTS}/{7:012d}/weights.safetensors",
)
