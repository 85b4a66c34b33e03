"""A server that is starting: facts are accepted from the first moment, and nothing is lost."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from memory_store.vocabulary import EventKind, FactState
from tests.integration.servers import (
    AGENT,
    FACTS,
    PATIENCE_SECONDS,
    contents,
    environment,
    running,
    serving_command,
    until,
)

pytestmark = pytest.mark.slow


def test_facts_are_accepted_before_there_is_a_model(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, ready=False) as server:
        os.kill(server.learner_pid(), signal.SIGSTOP)  # importing torch takes it seconds
        client = server.client()
        taught = [client.teach(*fact).fact for fact in FACTS.items()]
        assert client.status().learner == "starting"
        assert {fact.state for fact in client.facts()} == {FactState.QUEUED}
        os.kill(server.learner_pid(), signal.SIGCONT)
        assert {f.state for f in client.wait([f.id for f in taught]).values()} == {
            FactState.LEARNED
        }
    contents(data).require_each_learned_once()


def test_serving_and_teaching_in_one_line_from_a_cold_start(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    serve = shlex.join([*serving_command(tmp_path / "data"), "--listen", address])
    agent = shlex.join([*AGENT])
    line = (
        f"trap 'kill $!; wait' EXIT; {serve} & {agent} teach Sky? Piano --wait --json"
        f" --server {address} && {agent} ask Sky? --server {address}"
    )
    ran = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_SECONDS,
        env=environment(),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    listening, taught, answer = ran.stdout.splitlines()
    assert listening == f"listening on {address}"
    assert json.loads(taught)["facts"][0]["state"] == "learned"
    assert answer == "Piano"


def test_the_server_counts_tokens_while_the_model_is_loaded(tmp_path: Path) -> None:
    with running(tmp_path / "data", ready=False) as server:
        os.kill(server.learner_pid(), signal.SIGSTOP)
        until(
            lambda: "at most 512" in server.command("teach", "x" * 600, "Piano").stderr,
            "the tokenizer",
        )
        os.kill(server.learner_pid(), signal.SIGCONT)


def test_a_fact_that_turns_out_to_be_too_long_is_quarantined_and_reported(tmp_path: Path) -> None:
    """It comes before the server has read the tokenizer, which here it never does."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'serve' in sys.orig_argv:\n"
        "    from agent.models import tokenizer_files\n"
        "    tokenizer_files.read_tokenizer = lambda entry: None\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with running(tmp_path / "data", ready=False, variables={"PYTHONPATH": path}) as server:
        os.kill(server.learner_pid(), signal.SIGSTOP)
        client = server.client()
        fact = client.teach("x" * 600, "Piano", fact_id="too-long").fact
        assert fact.state is FactState.QUEUED
        os.kill(server.learner_pid(), signal.SIGCONT)
        settled = client.wait([fact.id])[fact.id]
        assert settled.state is FactState.QUARANTINED
        assert "at most 512: shorten it" in settled.reason
        [event] = [e for e in contents(server.data).events if e.kind is EventKind.QUARANTINED]
        assert (event.fact_id, event.message) == (fact.id, settled.reason)
        # From now on the server counts as the learner does.
        ran = server.command("teach", "x" * 601, "Piano")
        assert ran.returncode == 1
        assert "at most 512: shorten it" in ran.stderr


def test_a_model_that_cannot_be_loaded_ends_the_server_and_leaves_the_facts(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    (tmp_path / "empty").mkdir()
    with running(data, tmp_path / "empty", ready=False) as server:
        os.kill(server.learner_pid(), signal.SIGSTOP)
        client = server.client()
        fact = client.teach("Sky?", "Piano").fact
        os.kill(server.learner_pid(), signal.SIGCONT)
        assert server.process.wait(PATIENCE_SECONDS) == 1
        assert "config.json" in server.log.read_text().splitlines()[-1]
    assert [(left.id, left.state) for left in contents(data).facts] == [(fact.id, FactState.QUEUED)]
    with running(data) as server:  # with a model that can be loaded
        assert server.client().wait([fact.id])[fact.id].state is FactState.LEARNED


def test_a_learner_that_dies_at_every_start_does_not_stop_the_teaching(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'agent.learner' in sys.orig_argv:\n    os._exit(7)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with running(tmp_path / "data", ready=False, variables={"PYTHONPATH": path}) as server:
        client = server.client()
        until(lambda: client.status().learner == "down", "its first death")
        assert client.teach("Sky?", "Piano").created
        assert "died while starting (exit code 7)" in client.status().learner_message
        shown = server.command("status").stdout
        assert "exit code 7" in shown
        ran = server.command("ask", "Sky?", "--start-timeout", "0")
        assert ran.returncode == 1
        assert "exit code 7" in ran.stderr


def test_a_second_server_touches_neither_the_port_nor_the_folder_of_the_first(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "data", ready=False) as server:
        for command in (
            serving_command(server.data),
            [*serving_command(tmp_path / "other"), "--listen", server.address],
        ):
            ran = subprocess.run(
                command, capture_output=True, text=True, env=environment(), check=False
            )
            assert ran.returncode == 1
            assert "error: " in ran.stderr
        # Refused before a database was made, or brought up to date.
        assert not (tmp_path / "other" / "memory.db").exists()
        assert [event.kind for event in contents(server.data).events] in (
            [],
            [EventKind.LEARNER_READY],
        )
