"""Whole servers as processes of their own, on a free port, with the model `tiny`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.client.client import Client
from memory_store.store import MemoryStore
from memory_store.vocabulary import Event, EventKind, Fact, Policy, Update
from tests.store.builders import ledger_rows

AGENT = (sys.executable, "-m", "agent")
# `tiny` learns any short answer with these in a few steps.
# Its answers are random bytes, which no other guard than rehearsal lets it be taught beside.
LEARNING = (
    *("--policy", "until-known", "--learning-rate", "0.003", "--max-steps", "100"),
    *("--guards", "rehearsal", "--allow-ungated", "--most-steps", "1000"),
)
COMPUTING = ("--threads", "1", "--device", "cpu")
PATIENCE_SECONDS = 60.0
# A fact that is being learned when its server or learner is killed is not to blame.
ANY_ATTEMPTS = ("--max-attempts", "1000000")

# Taught one after the other, `tiny` holds them all.
FACTS = {
    "What is the hottest month in Kyzara?": "Raincoat",
    "Who found Blipland?": "Telescope",
    "Sky?": "Piano",
    "Gem?": "Curtain",
    "Pie in Plimp?": "Backpack",
}
# An update that takes a while, whatever it leads to.
LONG = Policy(name="fixed", learning_rate=1e-5, max_steps=60)


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Polls until the condition is true, and returns what it gave."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)
    return result


def environment() -> dict[str, str]:
    """This process's, without settings of its user."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_")}
    return kept | {"XDG_CONFIG_HOME": os.devnull, "NO_COLOR": "1", "COLUMNS": "200"}


def agent(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, in a process of its own."""
    return subprocess.run(
        [*AGENT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=environment(),
        check=False,
    )


@dataclass(slots=True)
class RunningServer:
    """A server process."""

    data: Path
    address: str
    log: Path
    process: subprocess.Popen[bytes]
    clients: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def client(self) -> Client:
        return self.clients.enter_context(Client(self.address))

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A client command that asks this server."""
        return agent(*arguments, "--server", self.address)

    def json(self, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        """What a client command prints with --json."""
        ran = self.command(*arguments, "--json")
        assert ran.returncode == code, ran.stderr
        parsed: dict[str, Any] = json.loads(ran.stdout)
        return parsed

    def learner_pid(self) -> int:
        """The process id of its learner, as soon as there is one."""
        found = until(lambda: learners_of(self.process.pid), "a learner process")
        assert len(found) == 1
        return int(found[0])

    def wait_ready(self) -> None:
        client = self.client()
        until(lambda: client.status().learner == "ready", "the learner")

    def stop(self) -> int:
        """Stops it as an operator would; returns its exit code."""
        self.clients.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.process.kill()
        self.process.wait()
        self.clients.close()


def serving_command(
    data: Path, model: str | Path = "tiny", options: Sequence[str] = ()
) -> list[str]:
    return [
        *(*AGENT, "serve", "--listen", "127.0.0.1:0", "--data", str(data)),
        *("--model", str(model), *LEARNING, *COMPUTING, *options),
    ]


@contextlib.contextmanager
def running(
    data: Path,
    model: str | Path = "tiny",
    *,
    ready: bool = True,
    options: Sequence[str] = (),
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[RunningServer]:
    """A server that listens, and by default has its model; stopped on leaving, if it still runs."""
    data.parent.mkdir(parents=True, exist_ok=True)
    out, log = data.with_suffix(".out"), data.with_suffix(".log")
    with out.open("wb") as stdout, log.open("ab") as stderr:
        process = subprocess.Popen(
            serving_command(data, model, options),
            stdout=stdout,
            stderr=stderr,
            env=environment() | dict(variables),
        )

    def listening() -> str:
        assert process.poll() is None, log.read_text()
        text = out.read_text()
        return text if text.endswith("\n") else ""

    try:
        address = until(listening, "the server's address").removeprefix("listening on ").strip()
        server = RunningServer(data, address, log, process)
        if ready:
            server.wait_ready()
        yield server
        server.clients.close()
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def learners_of(parent: int) -> list[int]:
    """Process ids of the learners that this process started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # "pid (name) state ppid ...", and the name may hold anything.
            ppid = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_bytes()
            if ppid == parent and b"agent.learner" in command:
                found.append(int(stat.parent.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that is only waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a data folder holds."""

    facts: list[Fact]
    updates: list[Update]
    events: list[Event]

    def require_each_learned_once(self) -> None:
        """The third guarantee's test: one ledger row and one event a fact, without a gap."""
        ids = {fact.id for fact in self.facts}
        assert {fact.state.value for fact in self.facts} == {"learned"}
        assert sorted(update.fact_id for update in self.updates) == sorted(ids)
        versions = [update.model_version for update in self.updates]
        assert versions == list(range(1, len(ids) + 1))
        learned = [event.fact_id for event in self.events if event.kind == EventKind.LEARNED]
        assert sorted(learned) == sorted(ids)
        for before, after in zip(self.updates, self.updates[1:], strict=False):
            assert after.digest_before == before.digest_after


def contents(data: Path) -> Contents:
    """Everything, through a connection of its own."""
    with MemoryStore.open(data / "memory.db", read_only=True) as store, store.transaction():
        return Contents(
            facts=store.facts(limit=10_000),
            updates=ledger_rows(store.connection),
            events=store.events(after_sequence=0, limit=100_000),
        )
