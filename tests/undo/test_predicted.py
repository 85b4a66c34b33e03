"""Forgetting is exact under the policy `predicted` too, with the real learner."""

from __future__ import annotations

from pathlib import Path

from agent.teaching.guard_presets import NONE
from agent.teaching.rate_prediction import RatePredictor
from agent.teaching.rates import PREDICTED, SEARCH
from memory_store.vocabulary import LedgerKind, OperationState, Policy
from tests.store.builders import ledger_rows
from tests.undo.memory import running_memory

POLICY = Policy(name=PREDICTED, learning_rate=3e-3, max_steps=60, guards=NONE)
# Looks for a rate of 2e-3 first, whatever the fact.
NUMBERS = RatePredictor(intercept=-2.7, coefficients=(0.0,) * 4, spread=0.1, rows=30).as_numbers()


async def test_the_weights_equal_a_run_that_never_saw_the_fact(tmp_path: Path) -> None:
    async with running_memory(tmp_path / "never", policy=POLICY) as never:
        await never.teach("fact-d", "fact-c")
        async with running_memory(tmp_path / "full", policy=POLICY) as memory:
            memory.loop.predict_by(NUMBERS, 0)
            await memory.teach("fact-a", "fact-d", "fact-c")
            assert memory.learner.digest != never.learner.digest
            operation = await memory.forget("fact-a")
            assert operation.state is OperationState.DONE
            assert memory.learner.digest == never.learner.digest
            rows = await memory.store.read(lambda store: ledger_rows(store.connection))
    taught = [row for row in rows if row.kind is LedgerKind.TEACH]
    again = [row for row in rows if row.kind is LedgerKind.RELEARN]
    assert [row.policy and row.policy.predictor for row in taught] == [NUMBERS] * 3
    assert min(step.candidates for row in taught for step in row.steps if step.candidates) < 16
    assert [row.policy and (row.policy.name, row.policy.predictor) for row in again] == [
        (SEARCH, None)
    ] * 2
    assert all(step.candidates in (0, 16) for row in again for step in row.steps)
