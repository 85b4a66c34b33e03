"""The token file: what it holds, who may read it, and who is recognised by it."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError
from agent.server.access.tokens import KnownTokens, TokenFile
from agent.wire.methods import Role


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.json")


def test_the_file_is_private_and_holds_no_secret(file: TokenFile) -> None:
    token, presented = file.create("ci", Role.TEACH)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert presented.startswith(f"agent_{token.id}_")
    assert presented.rpartition("_")[2] not in file.path.read_text()
    assert file.read() == [token]
    assert (token.name, token.role) == ("ci", Role.TEACH)


def test_every_secret_is_another_one(file: TokenFile) -> None:
    made = {file.create("ci", Role.READ)[1] for _ in range(10)}
    assert len(made) == len(file.read()) == 10


def test_made_at_once_none_is_lost(file: TokenFile) -> None:
    makers = [
        threading.Thread(target=file.create, args=(f"maker {number}", Role.READ))
        for number in range(4)
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len(file.read()) == 4


def test_a_token_is_recognised_until_it_is_revoked(file: TokenFile) -> None:
    token, presented = file.create("ci", Role.READ)
    other, kept = file.create("people", Role.ADMIN)
    known = KnownTokens(file)
    assert known.find(presented) == token
    assert file.revoke(token.id) == token
    assert known.find(presented) is None
    assert known.find(kept) == other
    later, new = file.create("later", Role.READ)
    assert known.find(new) == later


SPOILED = {
    "cut": lambda t: t[:-1],
    "longer": lambda t: t + "0",
    "one digit": lambda t: t[:-1] + ("0" if t[-1] != "0" else "1"),
    "upper case": str.upper,
    "other separator": lambda t: t.replace("agent_", "agent-", 1),
    "other prefix": lambda t: t.replace("agent_", "other_", 1),
    "no prefix": lambda t: t.partition("_")[2],
    "nothing": lambda t: "",
    "no id": lambda t: f"agent__{t.rpartition('_')[2]}",
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_what_is_not_the_token_is_nobody(file: TokenFile, spoil) -> None:
    _, presented = file.create("ci", Role.READ)
    assert KnownTokens(file).find(spoil(presented)) is None


def test_the_secret_of_another_token_is_not_enough(file: TokenFile) -> None:
    reader, presented = file.create("reader", Role.READ)
    admin, _ = file.create("admin", Role.ADMIN)
    forged = presented.replace(reader.id, admin.id)
    assert KnownTokens(file).find(forged) is None


@given(st.text())
def test_nothing_that_is_presented_breaks_it(tmp_path_factory, presented: str) -> None:
    file = TokenFile(tmp_path_factory.getbasetemp() / "presented.json")
    if not file.path.exists():
        file.create("ci", Role.READ)
    assert KnownTokens(file).find(presented) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_may_read_is_refused_with_the_remedy(file: TokenFile, mode: int) -> None:
    _, presented = file.create("ci", Role.ADMIN)
    known = KnownTokens(file)
    assert known.find(presented) is not None
    file.path.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {file.path}"):
        file.read()
    assert known.find(presented) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"tokens": 3}',
        '{"tokens": [{"id": "1"}]}',
        json.dumps({"tokens": [dict.fromkeys(("id", "name", "role", "sha256", "created_at"), "")]}),
        "\udcff",
    ],
)
def test_a_damaged_file_lets_nobody_in(file: TokenFile, content: str) -> None:
    file.create("ci", Role.ADMIN)
    file.path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match="not a token file"):
        KnownTokens(file)


ROW = {"id": "a", "name": "me", "role": "read", "sha256": "0" * 64, "created_at": "2026"}
NOT_UNDERSTOOD = {
    "unknown role": ([{**ROW, "role": "root"}], "token 1 has the unknown role 'root': use one of"),
    "unknown field": ([ROW, {**ROW, "rol": "read"}], "token 2 has the unknown field 'rol'"),
    "missing field": ([{"id": "a"}], "token 1 has no name"),
    "wrong type": ([{**ROW, "id": 1}], "token 1: id must be a string"),
    "a short hash": ([{**ROW, "sha256": "0"}], "sha256 must be 64 hexadecimal digits"),
    "one id twice": ([ROW, ROW], "two tokens have the id 'a'"),
    "no object": (["a"], "token 1 is not an object"),
}


@pytest.mark.parametrize(("rows", "why"), NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD)
def test_a_file_that_is_not_understood_is_refused_and_says_why(
    file: TokenFile, rows: list[Any], why: str
) -> None:  # M13
    file.path.touch(0o600)
    file.path.write_text(json.dumps({"tokens": rows}))
    with pytest.raises(ConfigError, match=re.escape(why)) as caught:
        file.read()
    assert "0" * 64 not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"tokens": [], "tokns": []}', "unknown key 'tokns'"),
        ('{"tokens": [], "tokens": []}', "the key 'tokens' is given twice"),
    ],
)
def test_other_keys_of_a_token_file_are_refused(file: TokenFile, content: str, why: str) -> None:
    file.path.touch(0o600)  # M13
    file.path.write_text(content)
    with pytest.raises(ConfigError, match=why):
        file.read()


def test_a_file_that_is_taken_away_lets_nobody_in(file: TokenFile) -> None:
    _, presented = file.create("ci", Role.ADMIN)
    known = KnownTokens(file)
    file.path.unlink()
    assert known.find(presented) is None
    with pytest.raises(ConfigError, match="agent tokens create"):
        KnownTokens(file)


def test_what_cannot_be_revoked_or_made_is_told(file: TokenFile) -> None:
    file.create("ci", Role.READ)
    with pytest.raises(ConfigError, match="has no token abc"):
        file.revoke("abc")
    for name in ("", "x" * 65, "a\nb", "\x1b[31m"):
        with pytest.raises(ConfigError, match="printable"):
            file.create(name, Role.READ)
    with pytest.raises(ConfigError, match="cannot write the token file"):
        TokenFile(file.path / "tokens.json").create("ci", Role.READ)


def test_roles_cover_those_before_them() -> None:
    assert [[a.may(b) for b in Role] for a in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
