"""A server that is started in a stranger's folder imports nothing from there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.python_command import python_command
from tests.integration.servers import FACTS, environment, learners_of, serving_command, until
from tests.test_python_command import plant

pytestmark = pytest.mark.slow


def test_serve_where_agent_and_torch_are_planted(tmp_path: Path) -> None:
    """Its learner was restarted for ever, and ran what it found there."""
    folder = tmp_path / "folder"
    mark = plant(folder)
    # As the script `agent`, whose path begins with its own folder.
    command = python_command("-m", "agent", *serving_command(tmp_path / "data")[3:])
    log = tmp_path / "log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as server,
    ):
        try:
            assert server.stdout is not None
            address = server.stdout.readline().removeprefix("listening on ").strip()
            until(lambda: learners_of(server.pid), "a learner")
            for words in (["status", "--wait"], ["teach", "Sky?", FACTS["Sky?"], "--wait"]):
                ran = subprocess.run(
                    python_command("-m", "agent", *words, "--server", address),
                    cwd=folder,
                    env=environment(),
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert ran.returncode == 0, ran.stderr + log.read_text()
        finally:
            server.terminate()
    assert not mark.exists()
