"""A server for a benchmark: a separate process with an empty memory and, by default, `tiny`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.client.client import Client
from agent.errors import AgentError
from agent.python_command import python_command

START_SECONDS = 120.0
STOP_SECONDS = 60.0
SERVE_OPTIONS = (
    *("serve", "--listen", "127.0.0.1:0", "--model", "tiny", "--device", "cpu", "--threads", "1"),
    # With these, `tiny` learns any short answer, and it learns nothing but the benchmark's facts.
    *("--policy", "until-known", "--learning-rate", "0.003", "--max-steps", "100"),
    *("--guards", "rehearsal", "--allow-ungated", "--review-seconds", "0", "--audit-minutes", "0"),
    # Some benchmarks stop the learner: the server must not replace it.
    *("--max-queued", "10000000", "--silent-seconds", "0"),
)


@dataclass(frozen=True, slots=True)
class BenchmarkServer:
    """A running server.

    Attributes:
        address: HOST:PORT.
        pid: of its process.
    """

    address: str
    pid: int

    @contextlib.contextmanager
    def learner_stopped(self) -> Iterator[None]:
        """Suspends its learner: facts are accepted and wait, and no processor time is used."""
        learners = _children(self.pid)
        for learner in learners:
            os.kill(learner, signal.SIGSTOP)
        try:
            yield
        finally:
            for learner in learners:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(learner, signal.SIGCONT)


@contextlib.contextmanager
def benchmark_server(
    data: Path,
    module: Sequence[str] = ("-m", "agent"),
    environment: dict[str, str] | None = None,
    options: Sequence[str] | None = (),
) -> Iterator[BenchmarkServer]:
    """Starts a server on a free port, and stops it on leaving.

    Args:
        data: its folder; made if missing.
        module: arguments of Python that run the command line.
        environment: variables to add.
        options: of `agent serve`, after the default ones, which they override; None: `module` is
            the whole command.

    Raises:
        AgentError: it does not start.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_")}
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    arguments = [] if options is None else [*SERVE_OPTIONS, "--data", str(data), *options]
    with (data / "server.log").open("wb") as log:
        process = subprocess.Popen(
            python_command(*module, *arguments),
            stdout=subprocess.PIPE,
            stderr=log,
            env=own | {"XDG_CONFIG_HOME": os.devnull} | (environment or {}),
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        if not line.startswith("listening on "):
            raise AgentError(f"the server of the benchmark did not start: see {data}/server.log")
        address = line.removeprefix("listening on ").strip()
        with Client(address) as client:
            client.wait_ready(START_SECONDS)
        yield BenchmarkServer(address, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _children(parent: int) -> list[int]:
    """Process ids; empty where there is no /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # "pid (name) state ppid ...", and the name may hold anything.
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found
