"""A recording holds what was seen, all of it; a damaged one is told by its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.monitor.observations import Observation, Refused
from agent.monitor.recording import Recorder, RecordingError, read
from agent.monitor.ui import Page, Ui
from agent.monitor.view import frame
from memory_store.vocabulary import EventKind
from tests.monitor.session import at, detail, event, eventful, folded, gone, look

ODD = "\x1b[2J\n\u202e [red] 宽 \U0001f642"
SEEN: list[Observation] = [
    *eventful(),
    detail(1),
    gone(),
    Refused(at=at(21), reason=ODD),
    event(20, EventKind.LEARNER_DOWN, message=ODD),
]


def recorded(path: Path, seen: list[Observation]) -> Path:
    with Recorder(path) as recorder:
        for one in seen:
            recorder.write(one)
    return path


def test_what_is_replayed_is_what_was_seen(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.jsonl", SEEN)
    assert path.stat().st_mode & 0o777 == 0o600
    replayed = list(read(path))
    assert replayed == SEEN
    for ui in (Ui(), Ui(page=Page.FACTS), Ui(page=Page.DETAIL, selected="f1")):
        drawn = frame(folded(replayed), ui, look())
        assert drawn == frame(folded(SEEN), ui, look())
    assert path.read_text(encoding="utf-8").count("\n") == len(SEEN)


def test_an_unfinished_last_line_is_left_out(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.jsonl", SEEN)
    path.write_text(path.read_text(encoding="utf-8")[:-5], encoding="utf-8")
    assert list(read(path)) == SEEN[:-1]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        '{"at": "noon", "lost": ""}',
        '{"at": "2026-01-01", "dreamt": {}}',
        '{"at": "2026-01-01T00:00:00Z", "event": {"kind": 7000}}',
    ],
)
def test_another_file_is_refused_by_its_line(tmp_path: Path, line: str) -> None:
    path = recorded(tmp_path / "a.jsonl", SEEN[:2])
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(RecordingError, match=r"line 3 of .*a\.jsonl is not part of a recording"):
        list(read(path))


def test_fields_of_a_newer_release_are_passed_over(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.jsonl", SEEN[:2])
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"status":{', '"status":{"mood":"good",'), encoding="utf-8")
    assert list(read(path)) == SEEN[:2]


def test_files_that_cannot_be_used_are_named_with_the_remedy(tmp_path: Path) -> None:
    taken = tmp_path / "taken.jsonl"
    taken.write_text("mine")
    with pytest.raises(RecordingError, match="exists already"):
        Recorder(taken)
    assert taken.read_text() == "mine"
    with pytest.raises(RecordingError, match="cannot write"):
        Recorder(tmp_path / "nowhere" / "a.jsonl")
    with pytest.raises(RecordingError, match="cannot read"):
        list(read(tmp_path / "absent.jsonl"))
    taken.write_bytes(b"\xff\n")
    with pytest.raises(RecordingError, match="not UTF-8"):
        list(read(taken))
