"""`agent tokens create --out`: a token that only its owner can read."""

from __future__ import annotations

from pathlib import Path

from agent.service.tokens import TokenFile
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
