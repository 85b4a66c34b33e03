"""Rolling back: an earlier version is served again, and each fact is what it was then."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from agent.server.loop.line_reader import read_line
from agent.server.loop.undo.operation_runner import OperationRunner
from memory_store import rollback_states, undo
from memory_store.branches import Beginning
from memory_store.lines import Line
from memory_store.vocabulary import Update


@dataclass(kw_only=True)
class Rollback(OperationRunner):
    """Serves the version that was asked for, or the nearest one that can be reached."""

    _line: Line = field(init=False)

    async def _beginning(self, latest: int | None) -> Beginning:
        return Beginning(self.operation.to_version if latest is None else latest, 0)

    async def _build(self) -> None:
        """Writes down what each fact will be."""
        reached, wanted, written = self.operation.branch_version or 0, None, 0
        self._line = await read_line(self.serving.store, reached)
        if reached != self.operation.to_version:
            wanted = await read_line(self.serving.store, self.operation.to_version)
        self._report("looking up what each fact was then")
        write_down = partial(
            rollback_states.write_down, operation=self.operation, line=self._line, wanted=wanted
        )
        while written := await self.serving.store.write(partial(write_down, after=written)):
            pass

    async def _switch(self) -> Update:
        operation, reached = self.operation, self.operation.branch_version or 0
        end = await self._end_row(reached)
        proof: dict[str, Any] = {"digest_after": end.digest_after, "drift": await self._drift(end)}
        if reached != operation.to_version:
            proof |= {"served": reached, "served_because": operation.message}
        async with self.serving.store.switching():
            return await self.serving.store.write(
                partial(
                    undo.finish_rollback,
                    operation_id=operation.id,
                    end=end,
                    proof=proof,
                    line=self._line,
                )
            )
