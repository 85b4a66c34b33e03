"""`agent tokens create --out`: a token that only its owner can read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent.server.access.tokens import TokenFile
from tests.cli.conftest import Agent


def test_a_token_goes_into_a_file_that_only_its_owner_can_read(agent: Agent, tmp_path: Path):
    tokens, out = tmp_path / "tokens.json", tmp_path / "token"
    ran = agent(
        "tokens", "create", "ci", "--role", "read", "--tokens", str(tokens), "--out", str(out)
    )
    assert (ran.code, ran.out) == (0, "")
    assert out.stat().st_mode & 0o777 == 0o600
    assert [token.name for token in TokenFile(tokens).read()] == ["ci"]
    assert out.read_text().strip() not in ran.err


def test_a_file_that_is_there_is_kept_and_no_token_is_made(agent: Agent, tmp_path: Path):
    tokens, out = tmp_path / "tokens.json", tmp_path / "token"
    out.write_text("mine")
    ran = agent(
        "tokens", "create", "ci", "--role", "read", "--tokens", str(tokens), "--out", str(out)
    )
    assert ran.code == 2
    assert "choose another name" in ran.err
    assert out.read_text() == "mine"
    assert not tokens.exists()


def test_where_its_file_cannot_be_made_no_token_is_made(agent: Agent, tmp_path: Path):
    tokens, out = tmp_path / "tokens.json", tmp_path / "missing" / "token"
    ran = agent(
        "tokens", "create", "ci", "--role", "read", "--tokens", str(tokens), "--out", str(out)
    )
    assert ran.code == 1
    assert "choose another place" in ran.err
    assert not tokens.exists()


def test_where_there_is_no_token_there_is_no_file(agent: Agent, tmp_path: Path):
    (tmp_path / "file").touch()
    tokens, out = tmp_path / "file" / "tokens.json", tmp_path / "token"
    ran = agent(
        "tokens", "create", "ci", "--role", "read", "--tokens", str(tokens), "--out", str(out)
    )
    assert ran.code == 1
    assert not out.exists()


def test_a_token_that_finds_no_room_in_its_file_is_revoked(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tokens, out = tmp_path / "tokens.json", tmp_path / "token"
    opened = os.open

    def on_a_full_disk(path: str | Path, *arguments: Any) -> int:
        return opened("/dev/full", os.O_WRONLY) if path == out else opened(path, *arguments)

    monkeypatch.setattr(os, "open", on_a_full_disk)
    ran = agent(
        "tokens", "create", "ci", "--role", "read", "--tokens", str(tokens), "--out", str(out)
    )
    assert ran.code == 1
    assert "it is revoked" in ran.err
    assert TokenFile(tokens).read() == []
    assert not out.exists()
