"""What a memory is tied to: the model, its tokenizer, and the general text of its updates."""

from __future__ import annotations

import asyncio
import logging

from agent.models.tokenizer_identity import identify
from agent.teaching.types import LearnerDescription
from memory_store import meta
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)


async def bind(
    store: StoreThreads, model: str, description: LearnerDescription, *, accept: bool
) -> None:
    """Ties the memory to what a learner has loaded, or checks that it is the same.

    Args:
        store: the memory.
        model: name or folder, for messages.
        description: of the learner.
        accept: take another tokenizer than the memory was taught with; another model never.

    Raises:
        OtherModelError: it is another model, or (`OtherTokenizerError`) another tokenizer.
    """
    await store.write(
        lambda store: meta.bind_model(
            store.connection, name=model, base_digest=description.base_digest
        )
    )
    if not description.tokenizer:
        return
    tokenizer = await asyncio.to_thread(identify, description.tokenizer)
    await store.write(
        lambda store: meta.bind_tokenizer(
            store.connection,
            file=tokenizer.file,
            behavior=tokenizer.behavior,
            library=tokenizer.library,
            accept=accept,
        )
    )


class GeneralTextBinding:
    """Checks that updates are held to the general text that the memory was first taught with."""

    def __init__(self, store: StoreThreads) -> None:
        self._store = store
        self._seen = ""

    async def seen(self, digest: str) -> None:
        """An update was held to the text with this digest; empty: to none."""
        if digest in ("", self._seen):
            return
        bound = await self._store.write(
            lambda store: meta.bind_general_text(store.connection, digest=digest)
        )
        self._seen = digest
        if bound != digest:
            logger.error(
                "updates are held to another general text (%s) than this memory's first ones (%s),"
                " which cannot be replayed with it: restore the folder general-text from a backup"
                " of the data folder",
                digest[:12],
                bound[:12],
            )
