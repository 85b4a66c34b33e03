"""A server that cannot start says why in one line; one that is told to stop, stops."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.models.tiny import build_tiny
from memory_store.vocabulary import Event, EventKind
from tests.integration.servers import (
    PATIENCE_SECONDS,
    RunningServer,
    contents,
    environment,
    is_alive,
    running,
    serving_command,
    until,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("refusals") / "data") as started:
        yield started


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of other weights."""
    folder = tmp_path_factory.mktemp("other-model")
    model, tokenizer = build_tiny()
    for parameter in model.parameters():
        parameter.data.mul_(0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def refusal(command: list[str]) -> str:
    """The one line of a server that does not start."""
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=environment(),
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    lines = ran.stderr.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    return lines[-1]


def test_a_port_in_use(server: RunningServer, tmp_path: Path) -> None:
    line = refusal([*serving_command(tmp_path / "data"), "--listen", server.address])
    assert server.address in line
    assert "--listen" in line


def test_a_data_folder_in_use(server: RunningServer) -> None:
    line = refusal(serving_command(server.data))
    assert str(server.data) in line
    assert "in use by another server" in line
    assert "--data" in line


def test_an_unknown_model(tmp_path: Path) -> None:
    line = refusal(serving_command(tmp_path / "data", "tinny"))
    assert "'tinny'" in line
    assert "Did you mean tiny" in line


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    line = refusal(serving_command(tmp_path / "data", tmp_path / "empty"))
    assert str(tmp_path / "empty") in line


def test_a_settings_file_that_does_not_exist(tmp_path: Path) -> None:
    command = serving_command(tmp_path / "data")
    command[3:3] = ["--config", str(tmp_path / "none.toml")]
    assert str(tmp_path / "none.toml") in refusal(command)


def test_an_address_that_is_none(tmp_path: Path) -> None:
    line = refusal([*serving_command(tmp_path / "data"), "--listen", "256.0.0.1:1"])
    assert "256.0.0.1:1" in line


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert str(tmp_path / "data") in refusal(serving_command(tmp_path / "data"))


def test_over_a_damaged_database_it_stays_up_and_serves_nothing(tmp_path: Path) -> None:
    (tmp_path / "memory.db").write_bytes(b"not a database" * 1000)
    (tmp_path / "newest-backup").mkdir()
    (tmp_path / "newest-backup" / "memory.db").touch()
    (tmp_path / "backups.txt").write_text(f"{tmp_path}/older\n{tmp_path}/newest-backup\n")
    command = serving_command(tmp_path)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("listening on ").strip()
        with grpc.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="")
            answer = health.Check(request, timeout=PATIENCE_SECONDS, wait_for_ready=True)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert "memory.db" in told
    assert "newest-backup" in told
    assert "Traceback" not in told


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a server ended that had learned a fact, and was being watched."""

    data: Path
    exit_code: int
    watched: list[Event]
    learner_pid: int


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    data = tmp_path_factory.mktemp("stopped") / "data"
    with running(data) as server:
        learner = server.learner_pid()
        client = server.client()
        watching = client.watch(0)
        watched = [next(watching)]
        client.wait([client.teach("Sky?", "Piano").fact.id])
        server.process.send_signal(signal.SIGTERM)
        exit_code = server.process.wait(PATIENCE_SECONDS)
        watched += watching  # it ends, and without an error
        return Stopped(data, exit_code, watched, learner)


def test_sigterm_drains_quickly_in_spite_of_a_watcher(stopped: Stopped) -> None:
    assert stopped.exit_code == 0
    until(lambda: not is_alive(stopped.learner_pid), "the learner's end", PATIENCE_SECONDS)
    # The watch has ended without an error: it was not cut off after the grace.
    assert EventKind.LEARNED in [event.kind for event in stopped.watched]


def test_a_data_folder_of_another_model(stopped: Stopped, other_model: Path) -> None:
    line = refusal(serving_command(stopped.data, other_model))
    assert str(stopped.data) in line
    assert "'tiny'" in line
    assert str(other_model) in line
    assert [fact.question for fact in contents(stopped.data).facts] == ["Sky?"]


def test_sigterm_while_the_model_loads_is_heeded(tmp_path: Path) -> None:
    with running(tmp_path / "data", ready=False) as server:
        learner = server.learner_pid()
        assert server.stop() == 0
        until(lambda: not is_alive(learner), "the learner's end", 15)
