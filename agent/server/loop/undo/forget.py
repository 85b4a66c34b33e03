"""Forgetting a fact exactly: a branch without it takes the place of the served line."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from agent.server.loop.line_reader import read_line
from agent.server.loop.undo.branch_builder import BranchBuilder
from agent.server.loop.undo.operation_runner import OperationRunner
from agent.teaching.procedure import probe_retention
from memory_store import branch_growth, branches, operations, undo
from memory_store.branches import ROWS_AT_ONCE, Beginning, Search
from memory_store.companion_sampling import HeldFacts
from memory_store.facts import question_key
from memory_store.lines import Line
from memory_store.store import MemoryStore
from memory_store.vocabulary import Fact, FactState, NewProbe, Update

# Facts that are probed for the proof: from before the forgotten one, and of those after it.
PROVEN_FACTS, PROVEN_RELEARNED = 64, 256


@dataclass(kw_only=True)
class Forget(OperationRunner):
    """Learns again, without the fact, everything that followed it."""

    _line: Line | None = field(init=False, default=None)  # that is served
    _fact: Fact = field(init=False)
    _older_ids: Sequence[str] = field(init=False)
    _branch: BranchBuilder = field(init=False)

    async def _beginning(self, latest: int | None) -> Beginning:
        self._report("looking for the last version without the fact")
        search = Search(self.operation.position, latest)
        head = await self.serving.store.read(MemoryStore.model_version)
        self._line = await read_line(self.serving.store, head)
        for first, last in self._line.parts(ROWS_AT_ONCE):
            found = await self.serving.store.read(partial(search.look, first=first, last=last))
            if found is not None:
                return found
        return search.end()

    async def _build(self) -> None:
        """Repeats what followed the fact, until the branch has everything that the head has."""
        operation = self.operation
        fact = await self.serving.store.read(partial(MemoryStore.fact, fact_id=operation.fact_id))
        if fact.erased and self.text is not None:
            fact = replace(fact, question=self.text.question, answer=self.text.answer)
        self._fact = fact
        if operation.branch_version == operation.base_version and not fact.erased:
            never_saw = math.exp((await self._probe(fact, held=False)).log_probability)
            await self.serving.store.write(
                partial(operations.update, operation_id=operation.id, never_saw=never_saw)
            )
        self._branch = BranchBuilder(
            serving=self.serving,
            operation=operation,
            learner=self.learner,
            failures=self.failures,
            turns=self.turns,
            held_facts=await self._read_held(),
            version=operation.branch_version or 0,
            line=self._line,
        )
        await self._branch.build()
        # What is left was learned on the head since the last look: nothing more from here on.
        await self.turns.stop()
        await self._branch.build()

    async def _read_held(self) -> HeldFacts:
        """Who is held where the branch stands; also chooses older facts for the proof."""
        self._report("reading which facts are held")
        held_facts, after, fact = HeldFacts(), 0, self._fact
        held = partial(branches.held_part, before=self.operation.first_position)
        while part := await self.serving.store.read(partial(held, after=after)):
            branches.add_held(held_facts, part)
            after = part[-1][0]
        self._older_ids = held_facts.sample(fact.id, question_key(fact.question), PROVEN_FACTS)
        after = 0
        relearned = partial(branches.relearned_part, operation_id=self.operation.id)
        while part := await self.serving.store.read(partial(relearned, after=after)):
            branches.add_held(held_facts, part)
            after = part[-1][0]
        return held_facts

    async def _switch(self) -> Update:
        fact, branch = self._fact, self._branch
        self._report("measuring what is held")
        probes = await self._retained()
        forgotten = None if fact.erased else await self._probe(fact, held=False)
        end = await self._end_row(branch.version, fact.id)
        operation = await self.serving.store.read(
            partial(operations.get, operation_id=self.operation.id)
        )
        learning = fact.learning
        proof: dict[str, Any] = {
            "branch_from": operation.base_version,
            # Why not from the last version without the fact; empty if it is that one.
            "branch_from_because": operation.message,
            **await self.serving.store.read(
                partial(branch_growth.count_verdicts, operation_id=operation.id)
            ),
            "probability_before_teaching": learning.probability_before if learning else None,
            "probability_taught": learning.probability_after if learning else None,
            # Of the weights that the branch grew from: they never saw the fact.
            "probability_on_branch_start": operation.never_saw,
            "probability_after": math.exp(forgotten.log_probability) if forgotten else None,
            "answers_it": forgotten.correct if forgotten else None,
            "retained": sum(probe.correct for probe in probes),
            "retained_of": len(probes),
            "digest_after": end.digest_after,
            "drift": await self._drift(end),
            "seconds": time.monotonic() - self._started,
        }
        line = await read_line(self.serving.store, branch.version)
        async with self.serving.store.switching():
            return await self.serving.store.write(
                partial(
                    undo.finish_forget,
                    operation_id=operation.id,
                    end=end,
                    proof=proof,
                    new_probes=[*([forgotten] if forgotten else []), *probes],
                    last_review=branch.last_review,
                    text=None if fact.erased else fact,
                    line=line,
                )
            )

    async def _retained(self) -> list[NewProbe]:
        """Probes what must still be known."""
        held = partial(
            branch_growth.held_on_branch, operation_id=self.operation.id, limit=PROVEN_RELEARNED
        )
        relearned = await self.serving.store.read(held)
        older = await self.serving.store.read(
            lambda store: [store.fact(id_) for id_ in self._older_ids]
        )
        # An answer that a newer one has replaced is not expected any more.
        chosen = [
            fact
            for fact in (*relearned, *older)
            if fact.superseded_by in ("", self._fact.id)
            and fact.state is not FactState.FORGOTTEN
            and not fact.erased
        ]
        return [await self._probe(fact) for fact in chosen]

    async def _probe(self, fact: Fact, *, held: bool = True) -> NewProbe:
        return (await probe_retention(self.learner, fact, held=held))[0]
