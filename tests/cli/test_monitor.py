"""`agent monitor` as a command: one frame, recordings, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.monitor.recording import Recorder, read
from memory_store.vocabulary import LearnerState
from tests.cli.conftest import Agent, InThread
from tests.monitor.session import eventful, gone
from tests.store.builders import teach_learned


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "session.jsonl"
    with Recorder(path) as recorder:
        for seen in eventful():
            recorder.write(seen)
    return path


def test_once_prints_a_frame_of_what_is_there(agent: Agent, server: InThread) -> None:
    server.write(lambda store: teach_learned(store, "Sky?", "Piano\x1b[2J"))
    ran = agent("monitor", server.address, "--once")
    assert (ran.code, ran.err) == (0, "")
    assert "fake-model" in ran.out
    assert "Sky? → Piano\\x1b[2J" in ran.out
    assert "\x1b[2J" not in ran.out
    assert agent("monitor", "--once").code == 0  # found by AGENT_SERVER


def test_once_has_an_exit_code_for_what_is_wrong_now(agent: Agent, server: InThread) -> None:
    server.parts.view.state = LearnerState.DOWN
    ran = agent("monitor", server.address, "--once")
    assert ran.code == 1
    assert "learner down" in ran.out


def test_without_a_server_there_is_no_frame(agent: Agent) -> None:
    ran = agent("monitor", "127.0.0.1:1", "--once")
    assert (ran.code, ran.out) == (1, "")
    assert "no server answers at 127.0.0.1:1" in ran.err


def test_a_recording_is_shown_and_made(agent: Agent, recording: Path, tmp_path: Path) -> None:
    ran = agent("monitor", "--once", "--replay", str(recording))
    assert ran.code == 0
    assert "guard failed: What is the hottest month in Kyzara 3?" in ran.out
    assert ran.out.endswith("q quit\n")


def test_a_frame_can_be_recorded(agent: Agent, server: InThread, tmp_path: Path) -> None:
    server.write(lambda store: teach_learned(store, "Sky?", "Piano"))
    path = tmp_path / "one.jsonl"
    shown = agent("monitor", server.address, "--once", "--record", str(path)).out
    assert agent("monitor", "--once", "--replay", str(path)).out == shown
    assert len(list(read(path))) > 4


def test_a_lost_server_in_a_recording_is_an_alarm(agent: Agent, recording: Path) -> None:
    with recording.open("a", encoding="utf-8") as file:
        file.write('{"at":"2026-01-01T12:00:18+00:00","lost":"it stopped"}\n')
    assert list(read(recording))[-1] != gone()
    assert agent("monitor", "--once", "--replay", str(recording)).code == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--record", "a.jsonl", "--replay", "b.jsonl"), "exclude each other"),
        ((), "needs a terminal"),
        (("--once", "--replay", "absent.jsonl"), "cannot read absent.jsonl"),
        (("--once", "--record", "/nowhere/a.jsonl"), "cannot write /nowhere/a.jsonl"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    agent: Agent, arguments: tuple[str, ...], told: str
) -> None:
    ran = agent("monitor", *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert told in ran.err
    assert ran.err.count("\n") == 1
