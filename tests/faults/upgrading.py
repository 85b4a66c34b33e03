"""Another release opens a memory that was forgetting, erasing or rolling back (hash learner).

The older release is stopped or killed at a random point of the operation, and some of its snapshots
are missing. The newer one cannot replay what the older one learned.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from agent.errors import UnreachableError
from memory_store import branch_growth, head_switch, ledger, operations, rollback_states, undo
from memory_store.ledger import TAUGHT
from memory_store.store import MemoryStore
from memory_store.vocabulary import NewFact, Operation, OperationState
from tests.faults.findings import ALL, Findings, check_memory
from tests.faults.hash_learner import HashLearner
from tests.faults.running import Life, living
from tests.faults.script import is_settled, state_of, teach
from tests.store.builders import ledger_rows

OLDER, NEWER = "hash/0", "hash/1"
FEWEST, MOST = 4, 20
SECRET = "Zanzibar"
# Facts of one step of a switch: few, so that it takes several.
FACTS_AT_ONCE = 3
STORE_POINTS = (
    (undo, "begin_operation"),
    (branch_growth, "record_relearned"),
    *((undo, name) for name in ("finish_forget", "finish_rollback", "close_forget")),
    (rollback_states, "write_down"),
    (head_switch, "go_on"),
)


@dataclass(slots=True)
class Case:
    """What the older release is asked for, and how it ends.

    Attributes:
        data: the folder.
        facts: in the order in which they are taught; the first `before` of them before the request.
        verb: forget, erase or rollback.
        gone: ids of the facts that are to be forgotten.
        ends: stopped or killed.
        left: how many more points are reached before it ends; None: not counted yet.
        accepted: ids of accepted facts,
        acknowledged: and of those that were when it ended.
        point: at which it ended; empty: the operation was over.
    """

    data: Path
    facts: Sequence[NewFact]
    before: int
    verb: str
    ends: str
    left: int | None = None
    gone: set[str] = field(default_factory=set)
    accepted: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    point: str = ""

    def __str__(self) -> str:
        return f"{self.data.name}, {self.verb} of {sorted(self.gone)} {self.ends} {self.point}"


async def run(folder: Path, cases: int, seed: int) -> Findings:
    """So many memories, each of two releases."""
    findings = Findings(kind="upgrade in the middle of an operation", seed=seed)
    chance = random.Random(seed)
    for number in range(cases):
        await _upgrade(folder / f"case-{number}", chance, findings)
        findings.cases += 1
    return findings


async def _upgrade(data: Path, chance: random.Random, findings: Findings) -> None:
    facts = _facts(chance, chance.randrange(FEWEST, MOST))
    case = Case(
        data=data,
        facts=facts,
        before=max(3, len(facts) - chance.randrange(4)),
        verb=chance.choice(("forget", "erase", "rollback")),
        ends=chance.choice(("stopped", "killed")),
    )
    operation = await _older_release(case, chance)
    for snapshot in sorted((case.data / "snapshots").glob("*")):
        if chance.random() < 0.5:
            shutil.rmtree(snapshot)
    findings.points[f"{case.verb}, {case.ends if case.point else 'done'}"] += 1
    weights = await _newer_release(case, findings)
    _check(case, operation, findings)
    expected = data.with_name(f"{data.name}-never")
    async with living(expected, algorithm=NEWER) as never:
        for fact in case.facts:
            if fact.fact_id not in case.gone:
                await never.store.write(partial(teach, new=fact))
        await never.settle()
        never_saw = _weights(await never.loop.current())
    if weights != never_saw:
        findings.diverge(f"{case}: other weights than without what was taken back")
    with MemoryStore.open(expected / "memory.db") as store:
        states = sorted(map(state_of, store.facts(limit=ALL)))
    with MemoryStore.open(case.data / "memory.db") as store:
        found = sorted(map(state_of, store.facts(limit=ALL)))
    wanted = sorted([*states, *((id_, "forgotten", "") for id_ in case.gone)])
    if found != wanted:
        findings.diverge(f"{case}: other states: {sorted(set(found) ^ set(wanted))}")


def _facts(chance: random.Random, count: int) -> list[NewFact]:
    questions = [f"Question {number}?" for number in range(count)]
    for number in range(1, count):
        if chance.random() < 0.1:
            questions[number] = questions[chance.randrange(number)]  # another answer to it
    return [
        NewFact(
            question=question,
            answer=f"{SECRET} {number:03}",
            fact_id=f"fact-{number:03}",
            request_id=f"request-{number}",
        )
        for number, question in enumerate(questions)
    ]


async def _older_release(case: Case, chance: random.Random) -> Operation:
    """Teaches and begins the operation, until it is stopped or killed, or all is done."""
    live, image = case.data, case.data.with_name(f"{case.data.name}-killed")
    running: list[Life] = []
    loop = asyncio.get_running_loop()

    def reach(point: str) -> None:
        if case.left is None or case.point:
            return
        case.left -= 1
        if case.left == 0:
            if case.ends == "killed":
                case.acknowledged = list(case.accepted)
                _copy_disk(live, image)
            else:
                loop.call_soon_threadsafe(running[0].loop.stop)
            case.point = point

    every = chance.choice((0, 1, 3, 7))
    with _store_points(reach):
        async with living(live, algorithm=OLDER, reach=reach, every_updates=every) as life:
            running.append(life)
            for fact in case.facts[: case.before]:
                await _accept(life, case, fact)
            if case.verb == "rollback" or chance.random() < 0.7:
                await life.settle()
            operation = await _request(life, case, chance)
            case.left = chance.randrange(1, 40)
            life.loop.wake()
            for fact in case.facts[case.before :]:
                await _accept(life, case, fact)
            while not case.point and not await life.store.read(is_settled):
                if life.task.done():
                    life.task.result()  # raises why it ended
                await asyncio.sleep(0.002)
    if case.ends == "killed" and case.point:
        case.data = image
    else:
        case.acknowledged = case.accepted
    return operation


async def _accept(life: Life, case: Case, fact: NewFact) -> None:
    await life.store.write(partial(teach, new=fact))
    case.accepted.append(str(fact.fact_id))
    life.loop.wake()


async def _request(life: Life, case: Case, chance: random.Random) -> Operation:
    ids = [str(fact.fact_id) for fact in case.facts[: case.before]]
    if case.verb != "rollback":
        victim = chance.choice(ids)
        case.gone = {victim}
        erase = case.verb == "erase"
        forget = partial(undo.request_forget, fact_id=victim, erase=erase)
        return await life.store.write(forget)
    # Everything was served in turn: a version ends where the next fact with an update begins.
    rows = await life.store.read(lambda store: ledger_rows(store.connection))
    undone = chance.choice(rows)
    case.gone = set(ids[ids.index(undone.fact_id) :])
    return await life.store.write(partial(undo.request_rollback, to_version=undone.parent_version))


def _copy_disk(live: Path, image: Path) -> None:
    """What a process that is killed at this moment leaves."""
    image.mkdir()
    for name in ("memory.db-wal", "memory.db"):  # in this order: the log may be moved meanwhile
        shutil.copy(live / name, image / name)
    with suppress(FileNotFoundError, shutil.Error):  # a snapshot that was just renamed
        shutil.copytree(live / "snapshots", image / "snapshots")


@contextmanager
def _store_points(reach: Callable[[str], None]) -> Iterator[None]:
    """Points before and after what an operation does in the store, and short steps of a switch."""

    def around(module: Any, name: str) -> Callable[..., Any]:
        whole = getattr(module, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            reach(f"before {name}")
            result = whole(*arguments, **named)
            reach(f"after {name}, before the commit")
            return result

        return wrapped

    with ExitStack() as patches:
        for module in (rollback_states, head_switch):
            patches.enter_context(mock.patch.object(module, "FACTS_AT_ONCE", FACTS_AT_ONCE))
        for module, name in STORE_POINTS:
            patches.enter_context(mock.patch.object(module, name, around(module, name)))
        yield


async def _newer_release(case: Case, findings: Findings) -> str:
    """Serves what the older release left, with --accept-drift if that is needed; the weights."""
    for accept_drift in (False, True):
        try:
            async with living(case.data, algorithm=NEWER, accept_drift=accept_drift) as life:
                for fact in case.facts:  # the client repeats what it has no answer to
                    await life.store.write(partial(teach, new=fact))
                await life.settle()
                return _weights(await life.loop.current())
        except UnreachableError:
            if accept_drift:
                raise
            findings.points["needs --accept-drift"] += 1
    raise AssertionError("it was served or refused")


def _weights(learner: object) -> str:
    assert isinstance(learner, HashLearner)
    return learner.weights


def _check(case: Case, operation: Operation, findings: Findings) -> None:
    """Whether the memory is whole, and what was taken back is not in it."""
    with MemoryStore.open(case.data / "memory.db") as store:
        check_memory(store, case.acknowledged, findings, str(case))
        done = operations.get(store, operation.id)
        if done.state is not OperationState.DONE:
            findings.diverge(f"{case}: the operation is {done.state}: {done.message}")
        line = ledger.at_versions(
            store.connection, ledger.lineage(store.connection, store.model_version())
        )
        taught = [row for row in line if row.kind in TAUGHT]
        needed = {id_ for row in taught for step in row.steps for id_ in step.rehearsed_fact_ids}
        held = needed | {row.fact_id for row in taught}
        if case.gone & held:
            findings.diverge(f"{case}: {sorted(case.gone & held)} is on the line that is served")
        algorithms = [row.algorithm for row in taught]
        if algorithms != sorted(algorithms):
            findings.diverge(f"{case}: the newer release's updates are not the last ones")
    if case.verb == "erase":
        [fact] = [fact for fact in case.facts if fact.fact_id in case.gone]
        for file in case.data.rglob("*"):
            if file.is_file() and fact.answer.encode() in file.read_bytes():
                findings.diverge(f"{case}: the erased text is in {file.name}")
