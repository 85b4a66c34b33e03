"""Tokens, passwords and keys are where they are needed, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.connection import Connection
from agent.client.channel import Access
from agent.errors import LearnerUnavailableError
from agent.python_command import without_secrets
from agent.server.learner_link import process
from tests.integration.servers import environment

SECRET = "agent_1234_s3cr3t"
SECRETS = {
    "AGENT_TOKEN": SECRET,
    "HF_TOKEN": SECRET,
    "HUGGING_FACE_HUB_TOKEN": SECRET,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "OPENAI_API_KEY": SECRET,
    "DB_PASSWORD": SECRET,
    "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={SECRET}",
    "https_proxy": f"http://me:{SECRET}@proxy:3128",
    "PIP_INDEX_URL": f"https://me:{SECRET}@index/simple",
}
NEEDED = {
    "PATH": "/usr/bin",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "0",
    "AGENT_CACHE": "/var/cache/agent",
    "AGENT_KERNELS": "plain",
    "HF_HOME": "/models",
    "LD_LIBRARY_PATH": "/opt/cuda/lib64",
    "HF_ENDPOINT": "https://hub.example:8443/a@b",
    "PYTHONSAFEPATH": "1",
}


def test_what_is_secret_is_told_by_name_or_value() -> None:
    assert without_secrets({**SECRETS, **NEEDED}) == NEEDED


async def test_the_learner_gets_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AGENT_CACHE", "/var/cache/agent")
    said, command = tmp_path / "environ", tmp_path / "cmdline"
    script = f"cat /proc/$$/environ > {said}; cat /proc/$$/cmdline > {command}; exit 1"
    monkeypatch.setattr(
        process, "python_command", lambda *arguments: ["bash", "-c", script, *arguments]
    )
    with pytest.raises(LearnerUnavailableError, match="died while starting"):
        async with process.learner_process(["--model", "tiny"]):
            pass
    variables = said.read_bytes().split(b"\0")
    assert b"AGENT_CACHE=/var/cache/agent" in variables
    assert SECRET.encode() not in said.read_bytes() + command.read_bytes()


def test_a_token_is_not_part_of_what_is_printed_of_a_connection() -> None:
    assert SECRET not in repr(Access(token=SECRET))
    assert SECRET not in repr(Connection(token=SECRET))


@pytest.mark.parametrize("token", [SECRET, f"{SECRET}\né"])
def test_no_error_and_no_traceback_shows_a_token(token: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "agent", "--debug", "health", "--server", "127.0.0.1:1"],
        env=environment() | {"AGENT_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "Traceback" in ran.stderr
    assert SECRET not in ran.stdout + ran.stderr
