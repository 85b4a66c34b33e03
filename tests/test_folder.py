"""The data folder is private, or the server does not start on it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.server.data.folder import held, is_held, is_open_to_others, make_private


def mode(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


@pytest.fixture(autouse=True)
def generous_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    make_private(tmp_path / "new")
    assert mode(tmp_path / "new") == 0o700


@pytest.mark.parametrize("found", [0o755, 0o770, 0o701])
def test_a_folder_of_ours_is_tightened_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, found: int
) -> None:
    for name, content in (("empty", ()), ("memory", ("memory.db", "rules.json"))):
        folder = tmp_path / name
        folder.mkdir(mode=found)
        for file in content:
            (folder / file).touch()
        assert is_open_to_others(folder)
        with caplog.at_level(logging.WARNING):
            make_private(folder)
        assert mode(folder) == 0o700
        assert str(folder) in caplog.text


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home" / "letters").touch()
    with pytest.raises(ConfigError, match=f"chmod 700 {tmp_path / 'home'}"):
        make_private(tmp_path / "home")
    assert mode(tmp_path / "home") == 0o755
    (tmp_path / "home").chmod(0o700)
    make_private(tmp_path / "home")  # meant


def test_what_cannot_be_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--data"):
        make_private(tmp_path / "file")


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(ConfigError, match="must belong to the user"):
        make_private(tmp_path)


def test_one_server_at_a_time(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with held(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(ConfigError, match="in use by another server"), held(tmp_path):
            pass
    assert not is_held(tmp_path)
