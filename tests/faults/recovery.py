"""How long a restart takes, with the tiny model: figures are printed, and only bounds are checked.

After a kill -9, the weights are those of before, to the last bit.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.client.client import Client
from agent.config import SNAPSHOT_UPDATES, SNAPSHOTS, ServeSettings
from agent.snapshots import snapshot_folders
from memory_store.store import MemoryStore
from memory_store.vocabulary import Accepted, EventKind, NewFact, Policy, Update
from tests.faults.findings import Findings, check_memory
from tests.faults.real_servers import facts_of
from tests.integration.servers import contents, running, until
from tests.store.builders import ledger_rows

DEFAULTS = ServeSettings(listen="", data=Path(), model="")
NO_SNAPSHOTS = ("--snapshot-seconds", "0")
# With rehearsal, as every update.
ONE_STEP = Policy(name="fixed", learning_rate=1e-5, max_steps=1)
MANY_STEPS = Policy(name="fixed", learning_rate=1e-5, max_steps=100)
BEFORE_THE_SNAPSHOT = 3
# How near to the moment of the next snapshot the server is killed.
NEAR = 0.9
# Updates that may be committed while a snapshot is written.
WHILE_WRITTEN = 5
# Longer than an update of `MANY_STEPS` takes.
SETTLED_SECONDS = 3.0
# Not a bound that is checked: only a restart that hangs takes so long.
LONGEST_RESTART_SECONDS = 600.0
READY = re.compile(r"replayed (\d+) updates, ([\d.]+) s")


@dataclass(frozen=True, slots=True)
class Restart:
    """What a start had to do.

    Attributes:
        replayed: updates.
        replay_seconds: from the base checkpoint to the head, restored snapshot included.
        seconds: from the start of the process until it was ready.
        identical: whether the weights are those of before.
    """

    replayed: int
    replay_seconds: float
    seconds: float
    identical: bool

    def __str__(self) -> str:
        rate = self.replayed / max(self.replay_seconds, 1e-9)
        return (
            f"ready after {self.seconds:.1f} s, of which replay of {self.replayed} updates"
            f" {self.replay_seconds:.1f} s ({rate:.0f} a second)"
        )


def run_long(folder: Path, cases: int, seed: int) -> Findings:
    """A restart with so many updates to replay since the last snapshot."""
    findings = Findings(kind="restart, many updates to replay (tiny model)", seed=seed)
    data = folder / "data"
    facts = _facts(seed, BEFORE_THE_SNAPSHOT + cases, ONE_STEP)
    with running(data, options=NO_SNAPSHOTS) as server:
        client = server.client()
        _teach(client, facts[:BEFORE_THE_SNAPSHOT])
        client.create_snapshot()
        _teach(client, facts[BEFORE_THE_SNAPSHOT:])
        _export_at_rest(client, folder / "before")
        server.kill()
    updates = _since_snapshot(data)
    restart = _restart(folder, NO_SNAPSHOTS)
    findings.cases += cases
    _check(data, facts, restart, updates, findings)
    return findings


def run_default(
    folder: Path, cases: int, seed: int, seconds: float = DEFAULTS.snapshot_seconds
) -> Findings:
    """So many restarts, each at the worst moment: just before the next snapshot is due.

    Updates of many steps and those of the server's own policy in turn: replaying saves the probes,
    not the steps, so it saves least with many steps.

    Args:
        folder: for everything.
        cases: how many.
        seed: of the facts.
        seconds: of learning between snapshots; the other settings are the default ones.
    """
    findings = Findings(kind="restart, default snapshots (tiny model)", seed=seed)
    options = ("--snapshot-seconds", str(seconds))
    for number in range(cases):
        case = folder / str(number)
        facts = _facts(seed + number, 10_000, None if number % 2 else MANY_STEPS)
        with running(case / "data", options=options) as server:
            client = server.client()
            taught = _teach_until_almost_due(client, case / "data", facts, seconds, findings)
            _export_at_rest(client, case / "before")
            server.kill()
        updates = _since_snapshot(case / "data")
        restart = _restart(case, options)
        findings.cases += 1
        learning = sum(row.seconds for row in updates)
        findings.remarks.append(
            f"{learning:.1f} s of learning, {sum(len(row.steps) for row in updates)} steps, were in"
            " no snapshot:"
        )
        _check(case / "data", taught, restart, updates, findings, at_most=True)
    return findings


def _teach_until_almost_due(
    client: Client, data: Path, facts: list[NewFact], seconds: float, findings: Findings
) -> list[NewFact]:
    """Past one snapshot that was due, until just before the next; returns what was taught.

    Whoever restarts the server at any moment in between replays no more than the settings say.
    """
    newest: set[int] = set()
    for number, new in enumerate(facts, start=1):
        _teach(client, [new])
        newest |= {version for version, _ in snapshot_folders(data / SNAPSHOTS)}
        updates = _since_snapshot(data)
        learning = sum(row.seconds for row in updates)
        longest = max((row.seconds for row in updates), default=0.0)
        if (
            len(updates) > SNAPSHOT_UPDATES + WHILE_WRITTEN
            or learning > seconds + WHILE_WRITTEN * longest
        ):
            findings.diverge(f"{len(updates)} updates, {learning:.1f} s, are in no snapshot")
            return facts[:number]
        # The first update after a start brings a snapshot at once; the second one was due.
        almost = len(updates) >= NEAR * SNAPSHOT_UPDATES or learning >= NEAR * seconds
        if len(newest) > 1 and almost:
            return facts[:number]
    raise AssertionError("no snapshot became due")


def _export_at_rest(client: Client, folder: Path) -> None:
    """Exports weights that no review moves, neither before the kill nor after the start."""
    client.pause_learning(paused=True)  # restarts included
    before = -1
    while (version := client.status().model_version) != before:
        before = version
        time.sleep(SETTLED_SECONDS)  # a review may have begun
    client.export(str(folder))


def _facts(seed: int, number: int, policy: Policy | None) -> list[NewFact]:
    return [
        NewFact(
            question=new.question,
            answer=new.answer,
            fact_id=new.fact_id,
            request_id=new.request_id,
            policy=policy,
        )
        for new in facts_of(seed, number)[:number]
    ]


def _teach(client: Client, facts: Sequence[NewFact]) -> None:
    for accepted in client.teach_many(facts):
        assert isinstance(accepted, Accepted), accepted
    client.wait(new.fact_id or "" for new in facts)


def _since_snapshot(data: Path) -> list[Update]:
    newest = max((version for version, _ in snapshot_folders(data / SNAPSHOTS)), default=0)
    with MemoryStore.open(data / "memory.db", read_only=True) as store:
        return ledger_rows(store.connection, after_version=newest)


def _restart(folder: Path, options: Sequence[str]) -> Restart:
    """Starts the server of `folder`/data; compares its weights with `folder`/before."""
    started = time.monotonic()
    with running(folder / "data", ready=False, options=options) as server:
        client = server.client()
        until(lambda: client.status().learner == "ready", "the learner", LONGEST_RESTART_SECONDS)
        seconds = time.monotonic() - started
        client.export(str(folder / "after"))
    weights = [(folder / when / "model.safetensors").read_bytes() for when in ("before", "after")]
    events = contents(folder / "data").events
    ready = [event for event in events if event.kind is EventKind.LEARNER_READY]
    told = READY.search(ready[-1].message)
    assert told is not None, ready[-1].message
    return Restart(
        replayed=int(told[1]),
        replay_seconds=float(told[2]),
        seconds=seconds,
        identical=weights[0] == weights[1],
    )


def _check(
    data: Path,
    facts: list[NewFact],
    restart: Restart,
    updates: list[Update],
    findings: Findings,
    *,
    at_most: bool = False,
) -> None:
    """At most so many updates: the learner may end a snapshot after its server was killed."""
    findings.remarks.append(str(restart))
    fewer = at_most and restart.replayed < len(updates)
    if restart.replayed != len(updates) and not fewer:
        findings.diverge(f"{restart.replayed} updates were replayed, not {len(updates)}")
    if not restart.identical:
        findings.diverge("the weights are others than before the restart")
    with MemoryStore.open(data / "memory.db") as store:
        check_memory(store, [new.fact_id or "" for new in facts], findings, data.name)
