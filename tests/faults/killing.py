"""kill -9 of the whole process at named points and at random moments, again and again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from agent.server.loop.recovery import replayed_updates
from memory_store import ledger
from memory_store.store import MemoryStore
from tests.faults.findings import ALL, Findings, check_memory
from tests.faults.hash_learner import HashLearner
from tests.faults.kill_child import POINTS
from tests.faults.script import state_of

ROOT = Path(__file__).parents[2]
FACTS = 48
# What a life without any fault takes once it is ready, about.
LIFE_SECONDS = 0.6
# A fact that is being learned when it is killed is not to blame, however often that happens.
ANY_ATTEMPTS = 1_000_000
LEARNER_DEATHS = 2
LONGEST_LIFE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LifeTold:
    """What a child printed, and whether it was killed."""

    acknowledged: tuple[str, ...]
    finished: bool
    killed: bool
    errors: str


def live(
    folder: Path,
    script: int,
    *,
    point: str = "",
    times: int = 0,
    learner_dies_at: int = 0,
    killed_after: float | None = None,
    max_attempts: int = ANY_ATTEMPTS,
) -> LifeTold:
    """One life of the child, to its end or its death."""
    arguments = [str(folder), str(script), str(FACTS), point]
    arguments += map(str, (times, learner_dies_at, max_attempts))
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.kill_child", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            if killed_after is not None:
                child.stdout.readline()  # ready
                time.sleep(killed_after)
                child.kill()
            out, errors = child.communicate(timeout=LONGEST_LIFE_SECONDS)
        finally:
            child.kill()
    # A last line that was cut short is left out.
    lines = [line.partition(" ") for line in out.split("\n")[:-1]]
    killed = child.returncode == -signal.SIGKILL
    assert killed or child.returncode == 0, f"the child failed: {errors}"
    return LifeTold(
        acknowledged=tuple(what for verb, _, what in lines if verb == "accepted"),
        finished=any(verb == "done" for verb, _, _ in lines),
        killed=killed,
        errors=errors,
    )


@dataclass(frozen=True, slots=True)
class End:
    """What a script leads to."""

    digest: str
    states: tuple[tuple[str, str, str], ...]


def end_of(folder: Path) -> End:
    """The digest of what is served, replayed from the ledger, and the state of every fact."""
    with MemoryStore.open(folder / "memory.db") as store:
        learner = HashLearner()
        line = ledger.lineage(store.connection, store.model_version())
        for row in replayed_updates(store, line):
            learner.apply(row)
        return End(learner.weights, tuple(map(state_of, store.facts(limit=ALL))))


def run(folder: Path, cases: int, seed: int) -> Findings:
    """Plays scripts until there were so many kills; each must end as if there had been none."""
    findings = Findings(kind="kill -9 at points and moments", seed=seed)
    chance = random.Random(seed)
    where: Counter[str] = Counter()
    deck: list[str] = []
    scripts = 0
    while findings.cases < cases:
        scripts += 1
        script = chance.randrange(2**32)
        undisturbed, data = folder / f"{scripts}-undisturbed", folder / f"{scripts}"
        assert live(undisturbed, script).finished
        _play_with_kills(data, script, cases - findings.cases, chance, findings, where, deck)
        end, expected = end_of(data), end_of(undisturbed)
        if end.digest != expected.digest:
            findings.diverge(f"script {script} ended with other weights")
        if end.states != expected.states:
            differing = sorted(set(end.states) ^ set(expected.states))
            findings.diverge(f"script {script} ended with other states: {differing}")
    moments = where.pop("", 0)
    findings.remarks.append(
        f"{scripts} scripts; {moments} at random moments, {where.total()} at"
        f" {len(where)} of {len(POINTS)} points"
    )
    return findings


def _play_with_kills(
    data: Path,
    script: int,
    kills: int,
    chance: random.Random,
    findings: Findings,
    where: Counter[str],
    deck: list[str],
) -> None:
    """Until the script is through."""
    acknowledged: set[str] = set()
    learner_deaths = 0
    told = LifeTold((), finished=False, killed=False, errors="")
    while not told.finished:
        learner_dies_at = 0
        if learner_deaths < LEARNER_DEATHS and chance.random() < 0.2:
            learner_deaths += 1
            learner_dies_at = chance.randrange(1, 8)
        point, killed_after = "", None
        if kills > 0 and chance.random() < 0.3:
            killed_after = chance.uniform(0.0, LIFE_SECONDS / 3)
        elif kills > 0:
            if not deck:  # each as often as any other
                deck += chance.sample(POINTS, len(POINTS))
            point = deck.pop()
        told = live(
            data,
            script,
            point=point,
            times=_times(point, chance),
            learner_dies_at=learner_dies_at,
            killed_after=killed_after,
        )
        acknowledged |= set(told.acknowledged)
        if told.killed:
            kills -= 1
            findings.cases += 1
            where[point] += 1
        if told.finished or chance.random() < 0.25:
            with MemoryStore.open(data / "memory.db") as store:
                check_memory(store, acknowledged, findings, f"script {script}")


def _times(point: str, chance: random.Random) -> int:
    """How often a point is passed first: some come seldom in a script, some at every write."""
    if "rollback" in point or "snapshot" in point:
        return 1
    return chance.randrange(1, 30 if "COMMIT" in point and "commit" not in point else 4)
