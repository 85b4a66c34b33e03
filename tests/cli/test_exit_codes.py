"""How commands end: exit codes, one line for an error, and Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli.exit_codes import EXIT_CODES
from agent.client.client import Client
from agent.errors import AgentError
from tests.cli.conftest import Agent, InThread
from tests.integration.servers import environment, serving_command

PATIENCE_SECONDS = 60.0


def test_the_exit_codes_are_told(agent: Agent) -> None:
    told = " ".join(agent("--help").out.split())
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AgentError("no such thing: try another"), "error: no such thing: try another\n"),
        (
            ZeroDivisionError("by\nzero"),
            "error: ZeroDivisionError: by zero (unexpected: 'agent --debug COMMAND' shows where;"
            " please report it)\n",
        ),
    ],
)
def test_an_error_is_one_line_unless_debug(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("agent.cli.connection.Client", fail)
    ran = agent("status")
    assert (ran.code, ran.out, ran.err) == (1, "", told)
    with pytest.raises(type(error)):
        agent("--debug", "status")
    monkeypatch.setenv("AGENT_DEBUG", "1")
    with pytest.raises(type(error)):
        agent("status")


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | {"AGENT_SERVER": os.environ["AGENT_SERVER"]},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, out, err


def until_watched(server: InThread) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not server.parts.hub._watchers:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_while_a_fact_is_waited_for(server: InThread) -> None:
    with started("teach", "Sky?", "Piano", "--wait") as process:
        until_watched(server)
        code, out, err = interrupted(process)
    assert (code, out) == (130, "")
    assert server.parts.stored_questions() == ["Sky?"]
    assert "agent facts list" in err
    assert err.endswith("interrupted\n")
    assert "Traceback" not in err


def test_ctrl_c_while_a_question_is_answered(
    server: InThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def ask(question: str, max_new_tokens: int):
        yield "Pia", 3
        asked.set()
        await asyncio.sleep(PATIENCE_SECONDS)

    monkeypatch.setattr(server.parts.view.learner, "ask", ask)
    with started("ask", "Sky?") as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not asked.is_set():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        code, _, err = interrupted(process)
    assert (code, err) == (130, "interrupted\n")


@pytest.mark.slow
def test_ctrl_c_stops_a_server_in_good_order(tmp_path: Path) -> None:
    process = subprocess.Popen(
        serving_command(tmp_path / "data"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    address = process.stdout.readline().removeprefix("listening on ").strip()
    with Client(address) as client:
        assert client.status().model == "tiny"
        code, _, err = interrupted(process)
    assert code == 0
    assert "Traceback" not in err


def test_the_shell_is_told_how_to_complete() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "from agent.cli import app; app(prog_name='agent')"],
        env=environment() | {"_AGENT_COMPLETE": "source_bash"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_AGENT_COMPLETE=complete_" in ran.stdout


def test_commands_and_options_are_completed() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "from agent.cli import app; app(prog_name='agent')"],
        env=environment()
        | {
            "_AGENT_COMPLETE": "complete_bash",
            "COMP_WORDS": "agent facts list --st",
            "COMP_CWORD": "3",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "--state"
