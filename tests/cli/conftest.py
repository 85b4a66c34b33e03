from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main, output
from agent.config import Security
from agent.server.api.server import LOCAL
from memory_store.store import MemoryStore
from tests.log_settings import log_settings_kept
from tests.server.serving import Serving, serving


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which must be exactly one line with one object."""
        assert self.out.count("\n") == 1, self.out
        parsed = json.loads(self.out)
        assert isinstance(parsed, dict)
        return parsed


Agent = Callable[..., Ran]


@pytest.fixture
def agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Agent:
    """Runs the command line in this process, with no settings of the machine's user."""
    for name in [name for name in os.environ if name.startswith("AGENT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "200")  # for help, which makes a console each time
    for console in (output.console, output.messages):
        monkeypatch.setattr(console, "width", 200)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["agent", *arguments])
        code: Any = 0
        capfd.readouterr()
        with log_settings_kept():
            try:
                main()
            except SystemExit as ended:
                code = ended.code or 0
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run


class InThread:
    """A server on a loop of its own, for clients that block."""

    def __init__(self, parts: Serving, loop: asyncio.AbstractEventLoop) -> None:
        self.parts, self._loop = parts, loop
        self.address = parts.server.address

    def write(self, operation: Callable[[MemoryStore], Any]) -> Any:
        """Changes the store as the server would."""
        return self.run(self.parts.store.write(operation))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Does it on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


@contextlib.contextmanager
def in_thread(
    folder: Path, security: Security = LOCAL, listen: str = "127.0.0.1:0"
) -> Iterator[InThread]:
    started, stop = threading.Event(), asyncio.Event()
    running: list[InThread] = []

    async def live() -> None:
        async with serving(folder, listen=listen, security=security) as parts:
            running.append(InThread(parts, asyncio.get_running_loop()))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield running[0]
    finally:
        running[0]._loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def server(tmp_path: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> Iterator[InThread]:
    """A server that the commands find by AGENT_SERVER."""
    with in_thread(tmp_path) as running:
        monkeypatch.setenv("AGENT_SERVER", running.address)
        yield running
