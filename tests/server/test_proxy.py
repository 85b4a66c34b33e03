"""Tokens, facts and spans never pass a proxy in the clear, and this machine needs none. # H7"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.addresses import is_loopback
from agent.client.async_client import AsyncClient
from agent.client.channel import Access
from agent.client.client import Client
from agent.config import Security
from agent.errors import AgentError, ConfigError
from agent.server.access.tokens import TokenFile
from agent.server.access.transport import require_safe_listen
from agent.server.api.server import HealthServer
from agent.server.telemetry.otel import OpenTelemetry
from agent.wire.methods import Role
from tests.cli.conftest import Agent, agent, in_thread  # noqa: F401 - a fixture
from tests.server.certificates import Certificates, make_certificates
from tests.server.serving import Serving, serving


class Listener:
    """Listens like a proxy or a collector, keeps what it is sent, and refuses everything."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.received = b""
        self.asked = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                connection.settimeout(10)
                received = connection.recv(65_536)
                if not received:  # our own goodbye
                    return
                self.received += received
                self.asked.set()
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    def close(self) -> None:
        host, _, port = self.address.rpartition(":")
        socket.create_connection((host, int(port))).close()
        self._thread.join()
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    yield found
    found.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """A proxy that the whole environment names."""
    found = Listener()
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://{found.address}")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield found
    found.close()


async def use_both_clients(address: str, access: Access) -> None:
    def use() -> None:
        with Client(address, access) as client:
            client.teach("Sky?", "Piano")

    await asyncio.to_thread(use)
    async with AsyncClient(address, access) as client:
        await client.teach("Gem?", "Curtain")


def alias(parts: Serving, host: str) -> str:
    return f"{host}:{parts.server.address.rpartition(':')[2]}"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "dns:///127.0.0.1", "ipv4:127.0.0.1", "127.8.9.1"]
)
async def test_a_loopback_server_is_spoken_to_directly(
    host: str, proxy: Listener, tmp_path: Path
) -> None:
    """H7: with a token, by both clients."""
    tokens = TokenFile(tmp_path / "tokens.json")
    _, token = tokens.create("teacher", Role.TEACH)
    listen = "127.8.9.1:0" if host == "127.8.9.1" else "127.0.0.1:0"
    async with serving(tmp_path, security=Security(tokens=tokens.path), listen=listen) as parts:
        await use_both_clients(alias(parts, host), Access(token=token))
    assert proxy.received == b""


async def test_a_socket_is_spoken_to_directly(proxy: Listener, tmp_path: Path) -> None:
    """H7."""
    async with serving(tmp_path, listen=f"unix:{tmp_path}/agent.sock") as parts:
        await use_both_clients(parts.server.address, Access())
    assert proxy.received == b""


async def test_nothing_without_tls_goes_through_a_proxy(proxy: Listener, tmp_path: Path) -> None:
    """H7: also where the address is not known to be of this machine; facts are secrets too."""
    async with serving(tmp_path) as parts:
        address = alias(parts, "0.0.0.0")
        assert not is_loopback(address)
        await use_both_clients(address, Access())
    assert proxy.received == b""


async def test_loopback_over_tls_is_spoken_to_directly(proxy: Listener, tmp_path: Path) -> None:
    """H7."""
    made: Certificates = make_certificates(tmp_path)
    security = Security(tls_cert=made.server_cert, tls_key=made.server_key)
    async with serving(tmp_path, security=security) as parts:
        await use_both_clients(parts.server.address, Access(tls_ca=made.ca))
    assert proxy.received == b""


def test_over_tls_a_proxy_may_pass_bytes_on_to_another_machine(
    proxy: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H7: it sees the host's name, and no token."""
    monkeypatch.setattr("agent.client.connection.CONNECT_SECONDS", 0.1)
    access = Access(tls_ca=make_certificates(tmp_path).ca, token="agent_1_2")
    with Client("memory.example.org:50051", access) as client, pytest.raises(AgentError):
        client.status()
    assert proxy.received.startswith(b"CONNECT memory.example.org:50051 ")
    assert b"agent_1_2" not in proxy.received


def test_commands_ask_a_server_of_this_machine_directly(
    proxy: Listener,
    agent: Agent,  # noqa: F811
    tmp_path: Path,
) -> None:
    """H7: without a token too; before, they said that no server answers."""
    with in_thread(tmp_path) as server:
        to = ("--server", server.address)
        assert agent("health", *to).out == "NOT_SERVING\n"
        assert agent("status", *to).code == 0
        shown = agent("status", *to, "--token", "agent_1_2")
        assert "--token can be read by every user" in shown.err
    assert proxy.received == b""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_spans_are_sent_to_a_collector_of_this_machine_directly(
    host: str, proxy: Listener, listener: Listener
) -> None:
    """H7: they hold the ids of facts."""
    port = listener.address.rpartition(":")[2]
    tracing = OpenTelemetry.sending_to(f"http://{host}:{port}/v1/traces")
    with tracing.serving("Teach", ()):
        pass
    tracing.close()
    assert listener.asked.wait(10)
    assert listener.received.startswith(b"POST /v1/traces ")
    assert proxy.received == b""


async def test_a_socket_has_its_path_as_address_and_is_its_owners(tmp_path: Path) -> None:
    """Low: `unix:1`, and sockets that others can connect to."""
    path = tmp_path / "agent.sock"
    server = HealthServer(f"unix:{path}")
    await server.start()
    assert server.address == f"unix:{path}"
    assert path.stat().st_mode & 0o077 == 0
    await server.stop(0)


def test_sockets_that_other_users_can_reach_need_more(tmp_path: Path) -> None:
    """Low: `unix-abstract:` counted as loopback."""
    with pytest.raises(ConfigError, match="--tokens"):
        require_safe_listen("unix-abstract:agent", Security())
    require_safe_listen("unix-abstract:agent", Security(tokens=tmp_path / "tokens.json"))
    require_safe_listen("unix-abstract:agent", Security(insecure_listen=True))
    listen = f"unix:{tmp_path}/agent.sock"
    require_safe_listen(listen, Security())
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="chmod 700"):
        require_safe_listen(listen, Security())
    tmp_path.chmod(0o1777)  # as /tmp: nobody can replace what is another's
    require_safe_listen(listen, Security())
    with pytest.raises(ConfigError, match="No such file"):
        require_safe_listen(f"unix:{tmp_path}/none/agent.sock", Security())
