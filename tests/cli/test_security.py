"""Tokens, TLS and the doctor, from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import Security
from agent.server.access.tokens import TokenFile
from agent.wire.methods import Role
from tests.cli.conftest import Agent, InThread, in_thread
from tests.server.certificates import Certificates, make_certificates


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.json")


@pytest.fixture
def guarded(
    tmp_path: Path, made: Certificates, tokens: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InThread]:
    """A server that wants everything: a certificate and a token."""
    tokens.create("nobody", Role.READ)
    security = Security(
        tls_cert=made.server_cert,
        tls_key=made.server_key,
        tls_client_ca=made.ca,
        tokens=tokens.path,
    )
    with in_thread(tmp_path, security) as running:
        yield running


def test_a_token_is_made_listed_and_revoked(agent: Agent, tokens: TokenFile) -> None:
    file = ("--tokens", str(tokens.path))
    plain = agent("tokens", "create", "ci", "--role", "teach", *file)
    presented = plain.out.strip()
    assert plain.out == f"{presented}\n"  # so that a script can take it
    assert "only now" in plain.err
    assert presented not in plain.err
    made = agent("tokens", "create", "people", "--role", "admin", *file, "--json").json
    assert set(made) == {"id", "name", "role", "created_at", "token"}
    listed = agent("tokens", "list", *file, "--json").json["tokens"]
    assert [(token["name"], token["role"]) for token in listed] == [
        ("ci", "teach"),
        ("people", "admin"),
    ]
    shown = agent("tokens", "list", *file).out
    for secret in (presented, made["token"]):
        assert secret.rpartition("_")[2] not in shown + str(listed)
    assert agent("tokens", "revoke", made["id"], *file, "--json").json["name"] == "people"
    assert len(tokens.read()) == 1
    again = agent("tokens", "revoke", made["id"], *file)
    assert (again.code, again.err.count("\n")) == (1, 1)


def test_health_is_asked_without_a_token(
    agent: Agent, guarded: InThread, made: Certificates
) -> None:
    tls = ("--tls-ca", str(made.ca), "--tls-cert", str(made.client_cert))
    to = ("--server", guarded.address, *tls, "--tls-key", str(made.client_key))

    async def serve(serving: bool) -> None:
        guarded.parts.server.set_serving("", serving)

    guarded.run(serve(False))
    assert agent("health", *to).code == 1
    guarded.run(serve(True))
    asked = agent("health", *to)
    assert (asked.code, asked.out) == (0, "SERVING\n")
    unknown = agent("health", "no.such.Service", *to, "--json")
    assert (unknown.code, unknown.json["state"]) == (1, "SERVICE_UNKNOWN")
    nobody = agent("health", "--server", "127.0.0.1:1")
    assert (nobody.code, nobody.err.count("\n")) == (1, 1)


def test_a_command_comes_in_with_certificate_and_token(
    agent: Agent,
    guarded: InThread,
    made: Certificates,
    tokens: TokenFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, presented = tokens.create("teacher", Role.TEACH)
    (tmp_path / "token").write_text(presented + "\n")
    tls = ("--tls-ca", str(made.ca), "--tls-cert", str(made.client_cert))
    to = ("--server", guarded.address, *tls, "--tls-key", str(made.client_key))
    token = ("--token-file", str(tmp_path / "token"))
    assert agent("teach", "Sky?", "Piano", *to, *token).code == 0
    assert agent("ask", "Sky?", *to, "--token", presented).out == "Piano\n"
    monkeypatch.setenv("AGENT_SERVER", guarded.address)
    monkeypatch.setenv("AGENT_TLS_CA", str(made.ca))
    monkeypatch.setenv("AGENT_CLIENT_CERT", str(made.client_cert))
    monkeypatch.setenv("AGENT_CLIENT_KEY", str(made.client_key))
    without = agent("facts", "list")
    assert (without.code, without.err.count("\n")) == (1, 1)
    assert "wants a token" in without.err
    monkeypatch.setenv("AGENT_TOKEN", presented)
    assert len(agent("facts", "list", "--json").json["facts"]) == 1
    refused = agent("rollback", "--to", "0")
    assert (refused.code, refused.err) == (
        1,
        "error: Rollback needs a token of role admin, and this one has teach\n",
    )


def test_the_settings_file_serves_every_command(
    agent: Agent, guarded: InThread, made: Certificates, tokens: TokenFile, tmp_path: Path
) -> None:
    _, presented = tokens.create("admin", Role.ADMIN)
    config = tmp_path / "settings.toml"
    config.write_text(
        f'server = "{guarded.address}"\ntls-ca = "{made.ca}"\ntoken = "{presented}"\n'
        f'tls_cert = "{made.client_cert}"\ntls_key = "{made.client_key}"\n'
    )
    for command in (("status",), ("facts", "list"), ("snapshots", "list"), ("snapshots", "prune")):
        ran = agent("--config", str(config), *command)
        assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--tls-ca", "missing.pem"), "cannot read missing.pem"),
        (("--tls-cert", "c.pem", "--tls-key", "k.pem"), "need --tls-ca"),
        (("--token-file", "missing"), "cannot read the token in missing"),
        (("--token", "a b\x07"), "no token has"),
        (("--server", "192.0.2.1:1", "--token", "agent_1_2"), "could read the token"),
    ],
)
def test_what_does_not_fit_is_one_line(agent: Agent, flags: tuple[str, ...], why: str) -> None:
    ran = agent("status", *flags)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert why in ran.err


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--listen", "0.0.0.0:0"), "--insecure-listen"),
        (("--tokens", "missing.json"), "agent tokens create"),
        (("--tls-cert", "missing.pem"), "go together"),
        (("--tls-cert", "missing.pem", "--tls-key", "missing.pem"), "cannot read"),
    ],
)
def test_a_server_that_would_not_be_safe_does_not_start(
    agent: Agent, tmp_path: Path, flags: tuple[str, ...], why: str
) -> None:
    data = tmp_path / "data"
    ran = agent("serve", "--model", "tiny", "--data", str(data), *flags)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[-1].startswith("error: ")
    assert why in ran.err


def test_the_doctor_tells_and_its_exit_code_too(agent: Agent, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    setup = ("--data", str(tmp_path), "--model", "tiny", "--listen", "127.0.0.1:0")
    sound = agent("doctor", *setup, "--json")
    assert sound.code == 0
    assert sound.json["healthy"]
    assert {"check", "state", "found", "remedy"} == set(sound.json["checks"][0])
    tmp_path.chmod(0o755)
    ill = agent("doctor", *setup)
    assert ill.code == 1
    assert f"chmod 700 {tmp_path}" in ill.out.replace("\n", "")
    assert not agent("doctor", *setup, "--json").json["healthy"]
