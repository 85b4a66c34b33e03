"""Predicting rates in the service: when it is fitted, what the learner is told, what is dropped."""

from __future__ import annotations

import asyncio
from functools import partial

from agent.server.loop.rate_predictor import RatePredicting
from agent.server.loop.ticks import Ticks
from agent.teaching.rate_prediction import MIN_ROWS, RatePredictor
from memory_store import operations, undo
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState, NewFact, OperationState, Policy, Step
from tests.loop.conftest import World
from tests.store.builders import learning, new_update, record_learned

PREDICTED = Policy(name="predicted", learning_rate=1e-3, max_steps=20)
NUMBERS = RatePredictor(intercept=-4.0, coefficients=(0.0,) * 4, spread=0.1, rows=30).as_numbers()
Given = list[tuple[tuple[float, ...] | None, int]]


def _learn_in_ledger(store: MemoryStore, question: str, rate: float, steps: int) -> None:
    """A ledger row with so many steps that compared rates."""
    store.teach(NewFact(question=question, answer="right"))
    fact = store.claim()
    assert fact is not None
    step = Step(
        learning_rate=rate,
        loss=2.0,
        probability=0.5,
        gradient_norm=1.0,
        answer_tokens=3,
        candidates=16,
    )
    new = new_update(fact.id, store.model_version(), steps=(step,) * steps)
    record_learned(store, new, learning())


async def learn_in_ledger(world: World, question: str, rate: float, steps: int) -> None:
    await world.store.write(partial(_learn_in_ledger, question=question, rate=rate, steps=steps))


def predicting(world: World) -> tuple[RatePredicting, Given]:
    given: Given = []
    return RatePredicting(world.store, lambda *what: given.append(what)), given


async def test_it_is_fitted_again_only_if_there_are_new_rows(world: World) -> None:
    fitting, given = predicting(world)
    await fitting.tick()
    assert given == []  # an empty ledger
    await learn_in_ledger(world, "a?", 1e-5, MIN_ROWS - 1)
    await fitting.tick()
    await fitting.tick()
    assert given == [(None, 1)]
    await learn_in_ledger(world, "b?", 1e-5, 1)
    await fitting.tick()
    await fitting.tick()
    (_, (numbers, version)) = given
    assert numbers is not None
    found = RatePredictor.of_numbers(numbers)
    assert (found.rows, version) == (MIN_ROWS, 2)
    await world.teach("queued?")  # changes nothing in the ledger
    await fitting.tick()
    assert len(given) == 2


async def test_what_a_restarted_server_finds_is_fitted_at_its_first_tick(world: World) -> None:
    await learn_in_ledger(world, "a?", 1e-5, MIN_ROWS)
    fitting, given = predicting(world)
    await fitting.tick()
    assert [version for _, version in given] == [1]
    assert given[0][0] is not None


async def test_only_facts_of_the_policy_are_learned_by_it(world: World) -> None:
    fact_ids = [
        await world.teach("a?", policy=PREDICTED),
        await world.teach("b?"),
    ]
    async with world.running() as loop:
        loop.predict_by(NUMBERS, 0)
        await world.until_state(fact_ids[-1], FactState.LEARNED)
    assert [policy.predictor for policy in world.machine.policies] == [NUMBERS, None]
    rows = await world.ledger()
    assert [row.policy and row.policy.predictor for row in rows] == [NUMBERS, None]
    assert (await world.fact(fact_ids[0])).policy == PREDICTED  # as the client said it


async def test_forgetting_searches_and_drops_what_was_fitted_before(world: World) -> None:
    first = await world.teach("a?", policy=PREDICTED)
    second = await world.teach("b?", policy=PREDICTED)
    async with world.running() as loop:
        loop.predict_by(NUMBERS, 0)
        await world.until_state(second, FactState.LEARNED)
        operation = await world.store.write(
            partial(undo.request_forget, fact_id=first, erase=False)
        )
        loop.wake()

        async def done() -> bool:
            now = await world.store.read(partial(operations.get, operation_id=operation.id))
            return now.state is OperationState.DONE

        await world.until(done)
        head = (await world.ledger())[-1].model_version
        loop.predict_by(NUMBERS, head - 1)  # of a ledger that was read before
        third = await world.teach("c?", policy=PREDICTED)
        loop.wake()
        await world.until_state(third, FactState.LEARNED)
        loop.predict_by(NUMBERS, head)
        fourth = await world.teach("d?", policy=PREDICTED)
        loop.wake()
        await world.until_state(fourth, FactState.LEARNED)
    told = [(policy.name, policy.predictor) for policy in world.machine.policies]
    assert told == [
        *[("predicted", NUMBERS)] * 2,
        ("search", None),
        ("predicted", None),
        ("predicted", NUMBERS),
    ]
    assert {row.policy.name for row in await world.ledger() if row.policy} == {
        *("predicted", "search")
    }


async def test_an_action_can_run_at_the_start_too() -> None:
    happened, too_early = asyncio.Event(), asyncio.Event()

    async def at_start() -> None:
        happened.set()

    async def later() -> None:
        too_early.set()

    ticks = Ticks()
    ticks.every(3600, later)
    ticks.every(3600, at_start, at_start=True)
    ticks.start()
    try:
        async with asyncio.timeout(10):
            await happened.wait()
    finally:
        ticks.stop()
    assert not too_early.is_set()
