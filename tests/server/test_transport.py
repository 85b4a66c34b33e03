"""TLS, mutual TLS, and the refusal to listen to strangers unprotected."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import grpc
import pytest

from agent.addresses import is_loopback
from agent.client.channel import Access, channel_options, open_channel
from agent.client.client import Client
from agent.config import Security
from agent.errors import ConfigError, ServerUnreachableError
from agent.server.access.tokens import TokenFile
from agent.server.access.transport import (
    SERVER_OPTIONS,
    require_free,
    require_safe_listen,
    server_credentials,
)
from agent.server.api.server import HealthServer
from agent.wire.error_details import RequestError
from agent.wire.methods import METHODS, Role
from tests.server.certificates import Certificates, make_certificates
from tests.server.serving import Serving, serving

T = TypeVar("T")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that fail are not looked at for long."""
    monkeypatch.setattr("agent.client.connection.CONNECT_SECONDS", 0.2)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("others"))


async def with_client(parts: Serving, access: Access, use: Callable[[Client], T]) -> T:
    def run() -> T:
        with Client(parts.server.address, access) as client:
            return use(client)

    return await asyncio.to_thread(run)


def teach_and_ask(client: Client) -> str:
    client.teach("Sky?", "Piano")
    assert [fact.question for fact in client.facts()] == ["Sky?"]
    return client.ask("Sky?").answer


async def test_over_tls_with_a_token_everything_works(ours: Certificates, tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "tokens.json")
    _, token = tokens.create("teacher", Role.TEACH)
    security = Security(
        tls_cert=ours.server_cert, tls_key=ours.server_key, tokens=tokens.path, rate_limit=1000
    )
    async with serving(tmp_path, security=security) as parts:
        access = Access(tls_ca=ours.ca, token=token)
        assert await with_client(parts, access, teach_and_ask) == "Piano"
        with pytest.raises(RequestError, match="wants a token") as refused:
            await with_client(parts, Access(tls_ca=ours.ca), Client.status)
        assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
        assert token not in repr(access)


async def test_a_server_of_another_ca_is_not_believed(
    ours: Certificates, others: Certificates, tmp_path: Path
) -> None:
    security = Security(tls_cert=ours.server_cert, tls_key=ours.server_key)
    async with serving(tmp_path, security=security) as parts:
        with pytest.raises(ServerUnreachableError, match=r"TLS with it fails.*--tls-ca"):
            await with_client(parts, Access(tls_ca=others.ca), Client.status)
        with pytest.raises(ServerUnreachableError, match="if it speaks TLS, give --tls-ca"):
            await with_client(parts, Access(), Client.status)


async def test_mutual_tls_lets_in_who_shows_a_certificate_of_the_ca(
    ours: Certificates, others: Certificates, tmp_path: Path
) -> None:
    security = Security(tls_cert=ours.server_cert, tls_key=ours.server_key, tls_client_ca=ours.ca)
    async with serving(tmp_path, security=security) as parts:
        known = Access(tls_ca=ours.ca, tls_cert=ours.client_cert, tls_key=ours.client_key)
        assert await with_client(parts, known, teach_and_ask) == "Piano"
        stranger = Access(tls_ca=ours.ca, tls_cert=others.client_cert, tls_key=others.client_key)
        for refused in (Access(tls_ca=ours.ca), stranger):
            with pytest.raises((ServerUnreachableError, RequestError)):
                await with_client(parts, refused, Client.status)


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [
        ("127.0.0.1:0", True),
        ("127.8.9.1:50051", True),
        ("[::1]:0", True),
        ("localhost:0", True),
        ("unix:/tmp/socket", True),
        ("0.0.0.0:0", False),
        ("[::]:0", False),
        ("192.168.1.7:50051", False),
        ("example.org:50051", False),
        ("localhost.example.org:50051", False),
        (":50051", False),
        ("50051", False),
        ("127.0.0.1.example.org:1", False),
    ],
)
def test_what_is_loopback(listen: str, loopback: bool) -> None:
    assert is_loopback(listen) == loopback


TLS = {"tls_cert": Path("cert.pem"), "tls_key": Path("key.pem")}
TOKENS = {"tokens": Path("tokens.json")}
CLIENT_CA = {"tls_client_ca": Path("ca.pem")}


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "needs TLS .*--tls-cert.* and authentication .*--tokens"),
        (TLS, "needs authentication"),
        (TOKENS, "needs TLS"),
        (TLS | TOKENS, None),
        (TLS | CLIENT_CA, None),
        ({"insecure_listen": True}, None),
    ],
    ids=["nothing", "TLS", "tokens", "both", "mutual TLS", "said so"],
)
def test_strangers_are_let_in_only_protected_or_on_purpose(given, missing: str | None) -> None:
    security = Security(**given)
    require_safe_listen("127.0.0.1:50051", Security())
    if missing is None:
        require_safe_listen("0.0.0.0:50051", security)
    else:
        with pytest.raises(ConfigError, match=f"{missing}.*--insecure-listen"):
            require_safe_listen("0.0.0.0:50051", security)


async def test_no_server_listens_to_strangers_unprotected() -> None:
    with pytest.raises(ConfigError, match="other machines"):
        HealthServer("0.0.0.0:0")


def test_an_address_needs_a_port() -> None:
    with pytest.raises(ConfigError, match="'50051' is no HOST:PORT"):
        require_safe_listen("50051", Security())


def test_bad_files_are_told_before_anything_is_served(
    ours: Certificates, others: Certificates, tmp_path: Path
) -> None:
    encrypted = tmp_path / "encrypted.pem"
    command = ["openssl", "rsa", "-aes256", "-passout", "pass:secret", "-out", str(encrypted)]
    encrypted_key = None
    try:
        subprocess.run([*command, "-in", str(ours.server_key)], check=True, capture_output=True)
        encrypted_key = encrypted
    except (OSError, subprocess.CalledProcessError):
        pass  # no openssl here, or another kind of key
    missing = tmp_path / "missing.pem"
    cases: list[tuple[Security, str]] = [
        (Security(tls_cert=ours.server_cert), "go together"),
        (Security(tls_key=ours.server_key), "go together"),
        (Security(tls_client_ca=ours.ca), "needs --tls-cert and --tls-key"),
        (Security(tls_cert=ours.server_cert, tls_key=others.server_key), "not a certificate and"),
        (Security(tls_cert=ours.server_key, tls_key=ours.server_key), "not a certificate and"),
        (Security(tls_cert=missing, tls_key=missing), "cannot read"),
        (
            Security(
                tls_cert=ours.server_cert, tls_key=ours.server_key, tls_client_ca=ours.server_key
            ),
            "no certificate",
        ),
        (
            Security(tls_cert=ours.server_cert, tls_key=ours.server_key, tls_client_ca=missing),
            "--tls-client-ca: cannot read",
        ),
    ]
    if encrypted_key:
        cases.append(
            (Security(tls_cert=ours.server_cert, tls_key=encrypted_key), "unencrypted private key")
        )
    for security, message in cases:
        with pytest.raises(ConfigError, match=message):
            server_credentials(security)


def test_a_client_keeps_its_token_from_eavesdroppers(ours: Certificates) -> None:
    token = Access(token="agent_1_2")
    with pytest.raises(ConfigError, match=r"anybody on the way to example\.org:1 could read"):
        open_channel("example.org:1", token)
    for address, access in (
        ("127.0.0.1:1", token),
        ("example.org:1", Access(tls_ca=ours.ca, token="agent_1_2")),
    ):
        channel, metadata = open_channel(address, access)
        channel.close()
        assert metadata == (("authorization", "Bearer agent_1_2"),)
    with pytest.raises(ConfigError, match="need --tls-ca"):
        open_channel("127.0.0.1:1", Access(tls_cert=ours.client_cert, tls_key=ours.client_key))
    with pytest.raises(ConfigError, match="characters that no token has"):
        open_channel("127.0.0.1:1", Access(token="agent\r\nx: y"))


def test_only_what_may_be_repeated_is_and_only_when_unavailable() -> None:
    options = dict(channel_options())
    [config] = json.loads(options["grpc.service_config"])["methodConfig"]
    names = {f"/{name['service']}/{name['method']}" for name in config["name"]}
    assert names == {name for name, method in METHODS.items() if method.repeatable}
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    for never in ("MemoryService/Forget", "AdminService/Rollback", "AdminService/Backup"):
        assert f"/continual.v1.{never}" not in names
    # Servers of gRPC take more than a question a minute for an attack, and ours must not.
    server = dict(SERVER_OPTIONS)
    least = server["grpc.http2.min_ping_interval_without_data_ms"]
    assert options["grpc.keepalive_time_ms"] >= 60_000 > least


def test_requests_are_limited_far_below_what_grpc_takes() -> None:
    assert dict(SERVER_OPTIONS)["grpc.max_receive_message_length"] <= 4 * 1024 * 1024 / 4


def test_a_port_in_use_is_found_before_anything_is_made() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}.*--listen"):
            require_free(f"127.0.0.1:{port}")
        with pytest.raises(ConfigError, match="--listen"):
            require_free(f"localhost:{port}")
    for listen in (f"127.0.0.1:{port}", "127.0.0.1:0", "unix:/no/such", "256.0.0.1:1", "a:b"):
        require_free(listen)
