"""Where the socket between server and learner is, and what becomes of folders of dead servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.addresses import LONGEST_SOCKET_PATH
from agent.errors import ConfigError
from agent.server.learner_link import socket_folder as module
from agent.server.learner_link.socket_folder import (
    PREFIX,
    SOCKET,
    UNLOCKED_SECONDS,
    require_socket_folder,
    socket_folder,
)

# Takes a folder, and dies without leaving it.
KILLED = """
import os, signal
from agent.server.learner_link.socket_folder import SOCKET, socket_folder
with socket_folder() as folder:
    (folder / SOCKET).touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for tests whose path leaves room for a socket's, unlike `tmp_path` of workers."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def parents(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found = [short_path]
    monkeypatch.setattr(module, "_parents", lambda: found)
    return found


def test_it_is_private_short_and_gone_afterwards(parents: list[Path]) -> None:
    with socket_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(os.fsencode(folder / SOCKET)) <= LONGEST_SOCKET_PATH
        (folder / SOCKET).touch()
    assert list(parents[0].iterdir()) == []


def test_a_long_folder_is_passed_over_for_a_short_one(
    parents: list[Path], short_path: Path
) -> None:
    """Low: a long TMPDIR restarted the learner for ever."""
    long = short_path / ("x" * 120)
    long.mkdir()
    parents[:] = [long, Path("/nowhere"), short_path]
    with socket_folder() as folder:
        assert folder.parent == short_path


def test_without_one_the_server_is_refused_and_told_why(
    parents: list[Path], short_path: Path
) -> None:
    long = short_path / ("x" * 120)
    parents[:] = [long, Path("/nowhere")]
    with pytest.raises(ConfigError, match=r"too long; /nowhere: No such file.*TMPDIR"):
        require_socket_folder()


def test_a_long_temporary_folder_is_one_of_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert module._parents() == [tmp_path, Path("/tmp"), Path("/run/user/7"), Path("/dev/shm")]
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert all(parent.is_absolute() for parent in module._parents())


def unlocked(parent: Path, name: str, *, age: float = 2 * UNLOCKED_SECONDS) -> socket.socket:
    """A folder as servers made it that held no lock; returns its bound socket."""
    (parent / name).mkdir(mode=0o700)
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(parent / name / SOCKET))
    then = time.time() - age
    os.utime(parent / name, (then, then))
    return bound


def test_what_servers_without_a_lock_left_is_removed_if_it_is_certainly_dead(
    parents: list[Path], short_path: Path
) -> None:
    """Low: `/tmp/agent-*` of older servers stayed."""
    unlocked(short_path, "agent-kfhnnurm").close()
    listening = unlocked(short_path, "agent-listen_0")
    listening.listen()
    strangers = ["agent-listen_0", "agent-recent_0", "agent-and_note", "agent-empty_00", "agent-x"]
    unlocked(short_path, "agent-recent_0", age=60).close()
    unlocked(short_path, "agent-x").close()
    unlocked(short_path, "agent-and_note").close()
    (short_path / "agent-and_note" / "note").touch()
    (short_path / "agent-empty_00").mkdir()
    then = time.time() - 2 * UNLOCKED_SECONDS
    for name in ("agent-and_note", "agent-empty_00"):
        os.utime(short_path / name, (then, then))
    with listening, socket_folder():
        pass
    assert sorted(folder.name for folder in short_path.iterdir()) == sorted(strangers)


def test_what_a_killed_server_left_is_removed_and_nothing_else(
    parents: list[Path], short_path: Path
) -> None:
    """Low: `/tmp/agent-*` stayed after kill -9."""
    environment = {**os.environ, "TMPDIR": str(short_path)}
    subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False)
    [left] = short_path.iterdir()
    strangers = (
        short_path / f"{PREFIX}file",
        short_path / f"{PREFIX}link",
        short_path / f"{PREFIX}full",
    )
    strangers[0].touch()
    strangers[1].symlink_to(short_path)
    strangers[2].mkdir()
    (strangers[2] / "note").touch()
    with socket_folder() as first, socket_folder() as second:
        assert not left.exists()
        assert first.exists()  # a server that lives holds it
        assert second != first
    assert sorted(short_path.iterdir()) == sorted(strangers)
