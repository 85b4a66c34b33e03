"""What is stored of a run, and whose folder it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import ConfigError, DiskFullError
from eval.errors import RequestError
from eval.run_folder import (
    SETTINGS,
    Journal,
    claimed,
    interruptible,
    report_files,
    require_same_settings,
)


def test_records_are_there_again_in_their_order(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    for number in range(3):
        Journal(path).append({"number": number, "text": "a\nb\u2028"})
    assert [record["number"] for record in Journal(path).records] == [0, 1, 2]
    assert Journal(path).records[0]["text"] == "a\nb\u2028"


@pytest.mark.parametrize("left", [b"{", b'{"number": 1}', b'{"number": 1, "text": "\xc3'])
def test_what_a_crash_left_of_a_line_is_dropped(tmp_path: Path, left: bytes):
    path = tmp_path / "journal.jsonl"
    Journal(path).append({"number": 0})
    with path.open("ab") as file:
        file.write(left)
    journal = Journal(path)
    journal.append({"number": 2})
    assert journal.records == Journal(path).records == [{"number": 0}, {"number": 2}]


def test_a_damaged_line_is_an_error(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"number": 0}\nnot json\n{"number": 1}\n')
    with pytest.raises(ConfigError, match="is damaged"):
        Journal(path)


def test_without_a_path_nothing_is_written(tmp_path: Path):
    journal = Journal()
    journal.append({"number": 0})
    assert journal.records == [{"number": 0}]


def test_the_same_settings_go_on(tmp_path: Path):
    for _ in range(2):
        require_same_settings(tmp_path / "new" / "run", {"seed": 0, "policy": {"name": "fixed"}})


def test_other_settings_are_refused_and_only_what_differs_is_told(tmp_path: Path):
    require_same_settings(tmp_path, {"seed": 0, "model": "tiny", "policy": {"name": "a", "max": 2}})
    stored = (tmp_path / SETTINGS).read_bytes()
    with pytest.raises(RequestError) as refused:
        require_same_settings(
            tmp_path, {"seed": 1, "model": "tiny", "policy": {"name": "b", "max": 2}, "new": None}
        )
    assert "(seed was 0, now 1; policy.name was 'a', now 'b')" in str(refused.value)
    assert (tmp_path / SETTINGS).read_bytes() == stored


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="holds something else"):
        require_same_settings(tmp_path, {"seed": 0})
    (tmp_path / SETTINGS).write_text("x")
    with pytest.raises(ConfigError, match="not of this program"):
        require_same_settings(tmp_path, {"seed": 0})
    with pytest.raises(ConfigError, match="cannot use the folder"):
        require_same_settings(tmp_path / "thesis.tex", {"seed": 0})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        SETTINGS,
        "thesis.tex",
    ]


def test_a_claimed_folder_keeps_other_runs_out(tmp_path: Path):
    out, settings = tmp_path / "out", {"seed": 0}
    with (
        claimed(out, settings),
        pytest.raises(ConfigError, match="another run"),
        claimed(out, settings),
    ):
        pass
    with claimed(out, settings), claimed(None, {"seed": 1}):
        pass


def test_an_interrupt_says_what_is_kept():
    with pytest.raises(KeyboardInterrupt, match="goes on from out"), interruptible(Path("out")):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt, match="nothing is kept"), interruptible(None):
        raise KeyboardInterrupt


def test_a_report_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path: Path):
    with pytest.raises(DiskFullError, match="nothing is measured twice"), report_files(tmp_path):
        raise OSError(28, "No space left on device")
