"""Each thing that `agent doctor` looks at, well and ill."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.config import Observability, Security, ServeSettings
from agent.doctor import examination, machine, models, network, storage
from agent.doctor.findings import GIB, Finding, State
from agent.errors import ModelNotFoundError
from agent.server.access.tokens import TokenFile
from agent.server.data.folder import held
from agent.wire.methods import Role
from memory_store.connection import MINIMUM_SQLITE
from tests.server.certificates import make_certificates
from tests.server.serving import serving

CHECKS = [
    *("python", "device", "memory", "sqlite", "data folder", "disk kind", "disk speed"),
    *("disk space", "model", "upgrade", "clock", "port", "security"),
]


def require_ill(finding: Finding, state: State, found: str) -> None:
    assert finding.state is state, finding
    assert found in finding.found
    assert finding.remedy


def test_a_sound_machine_is_found_sound(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    settings = ServeSettings(data=tmp_path, listen="127.0.0.1:0", model="tiny")
    found = list(examination.examine(settings))
    assert [finding.check for finding in found] == CHECKS
    assert {finding.state for finding in found} <= {State.GOOD, State.WARNING}, found
    assert list(tmp_path.iterdir()) == []  # it looks, and leaves nothing


def test_what_cannot_even_be_looked_at_is_a_finding(tmp_path: Path) -> None:
    settings = ServeSettings(
        data=tmp_path, listen="0.0.0.0:0", model="no-such-model", device="cuda:99"
    )
    bad = {f.check: f.found for f in examination.examine(settings) if f.state is State.BAD}
    assert {"device", "model", "security"} <= set(bad)
    assert "No model named 'no-such-model'" in bad["model"]
    assert "--insecure-listen" in bad["security"]


def test_python() -> None:
    assert machine.check_python((3, 11, 0)).state is State.GOOD
    require_ill(machine.check_python((3, 10, 9)), State.BAD, "3.10.9")


def test_memory() -> None:
    assert machine.check_memory(3 * GIB, 2 * GIB).state is State.GOOD
    assert machine.check_memory(3 * GIB, None).state is State.GOOD
    require_ill(machine.check_memory(GIB, 2 * GIB), State.BAD, "the model needs about 2.0")


def test_the_memory_of_this_machine_can_be_read() -> None:
    assert machine.available_memory() > 0


def test_sqlite_with_the_wal_reset_bug() -> None:
    assert machine.check_sqlite(MINIMUM_SQLITE).state is State.GOOD
    require_ill(machine.check_sqlite((3, 51, 2)), State.BAD, "3.51.2")


def test_data_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert storage.check_folder(tmp_path).state is State.GOOD
    assert "made at the first start" in storage.check_folder(tmp_path / "a" / "b").found
    with held(tmp_path):
        assert "in use by a server" in storage.check_folder(tmp_path).found
    tmp_path.chmod(0o750)
    require_ill(storage.check_folder(tmp_path), State.BAD, "open to other users")
    (tmp_path / "file").touch()
    require_ill(storage.check_folder(tmp_path / "file" / "data"), State.BAD, "is a file")


def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    require_ill(storage.check_folder(tmp_path), State.BAD, "cannot be written to")


@pytest.mark.parametrize(
    ("kind", "state"),
    [("ext4", State.GOOD), ("nfs4", State.BAD), ("tmpfs", State.WARNING), ("", State.GOOD)],
)
def test_file_system(kind: str, state: State) -> None:
    assert storage.check_file_system(kind).state is state


def test_a_network_file_system_that_was_asked_for_is_a_warning() -> None:
    assert storage.check_file_system("nfs4", allow_network=True).state is State.WARNING


@pytest.mark.parametrize(
    ("milliseconds", "state"), [(0.3, State.GOOD), (40, State.WARNING), (900, State.BAD)]
)
def test_disk_speed(milliseconds: float, state: State) -> None:
    assert storage.check_sync(milliseconds).state is state


def test_a_sync_takes_some_time(tmp_path: Path) -> None:
    assert storage.sync_milliseconds(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_disk_space() -> None:
    assert storage.check_space(20 * GIB, 2 * GIB).state is State.GOOD
    require_ill(storage.check_space(5 * GIB, 2 * GIB), State.WARNING, "5.0 GiB free of 10.2")
    require_ill(storage.check_space(2 * GIB, 2 * GIB), State.BAD, "less than one snapshot")
    assert storage.check_space(GIB, None).state is State.GOOD


def test_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models.check_model("tiny").state is State.GOOD
    monkeypatch.setattr("agent.models.catalog.is_cached", lambda entry: False)
    require_ill(models.check_model("pythia-410m"), State.WARNING, "not on this machine")
    with pytest.raises(ModelNotFoundError):
        models.check_model("pythia-411m")


def test_weights_are_known_from_the_list_or_from_the_files(tmp_path: Path) -> None:
    assert models.weights("pythia-410m") == 405_334_016 * 4
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    assert models.weights(str(tmp_path)) == 100
    assert models.weights("no-such-model") is None
    assert models.needed_memory("no-such-model") is None


def test_clock() -> None:
    now = datetime(2027, 3, 1, tzinfo=UTC)
    assert machine.check_clock(now, None).state is State.GOOD
    assert machine.check_clock(now, now - timedelta(days=1)).state is State.GOOD
    require_ill(machine.check_clock(now, now + timedelta(days=1)), State.BAD, "has seen 2027-03-02")
    require_ill(machine.check_clock(datetime(1970, 1, 1, tzinfo=UTC), None), State.BAD, "1970")


def test_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        require_ill(network.check_port(listen, held=False), State.BAD, "Address already in use")
        assert "TLS" not in network.check_port(listen, held=False).remedy
        # A server runs on the data folder, but it is not the one that has this port.
        require_ill(network.check_port(listen, held=True), State.BAD, "Address already in use")
    for wrong in ("256.0.0.1:1", "127.0.0.1:99999", "127.0.0.1"):
        require_ill(network.check_port(wrong, held=False), State.BAD, wrong)


async def test_a_port_that_the_server_of_this_data_holds_is_no_fault(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        listen = server.server.address
        ours = await asyncio.to_thread(network.check_port, listen, held=True)
        others = await asyncio.to_thread(network.check_port, listen, held=False)
    assert ours.state is State.GOOD
    assert "a server runs on the data folder" in ours.found
    require_ill(others, State.BAD, "a server of this program runs there, on other data")


def test_every_address_of_a_host_must_be_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        both = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: both)
        require_ill(
            network.check_port(f"localhost:{port}", held=False), State.BAD, "already in use"
        )


def test_one_address_family_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0)),  # nobody's
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: both)
    assert network.check_port("localhost:0", held=False).state is State.GOOD
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: both[:1])
    require_ill(network.check_port("localhost:0", held=False), State.BAD, "cannot listen on")


def test_a_port_that_is_bound_but_not_listened_on_is_taken() -> None:
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        bound.listen(1)
        listen = f"ipv4:127.0.0.1:{bound.getsockname()[1]}"
        require_ill(network.check_port(listen, held=False), State.BAD, "Address already in use")


def test_a_privileged_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))  # root may bind it

    monkeypatch.setattr(socket.socket, "bind", bind)
    require_ill(network.check_port("127.0.0.1:443", held=False), State.BAD, "Permission denied")


def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listen = f"unix:{path}"
    assert network.check_port(listen, held=False).state is State.GOOD
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        require_ill(network.check_port(listen, held=False), State.BAD, "Address already in use")
    assert network.check_port(listen, held=False).state is State.GOOD  # left behind
    path.unlink()
    path.touch()
    require_ill(network.check_port(listen, held=False), State.BAD, "a file that is no socket")
    missing = f"unix:{tmp_path / 'no' / 'socket'}"
    require_ill(network.check_port(missing, held=False), State.BAD, "nothing can be made")
    long = f"unix:{tmp_path / ('x' * 108)}"
    require_ill(network.check_port(long, held=False), State.BAD, "longer than 107 bytes")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{tmp_path}")
        abstract = f"unix-abstract:{tmp_path}"
        require_ill(network.check_port(abstract, held=False), State.BAD, "already in use")


def test_the_port_of_the_metrics(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        require_ill(network.check_metrics("127.0.0.1", port, held=False), State.BAD, "in use")
        require_ill(network.check_metrics("127.0.0.1", port, held=True), State.WARNING, "is taken")
        metrics = Observability(metrics_port=port)
        settings = ServeSettings(
            data=tmp_path, listen="127.0.0.1:0", model="tiny", observability=metrics
        )
        assert [f.state for f in examination.examine(settings) if f.check == "metrics"] == [
            State.BAD
        ]
    assert network.check_metrics("127.0.0.1", port, held=False).state is State.GOOD


async def test_of_a_port_with_tls_is_told_how_to_ask_whose_it_is(tmp_path: Path) -> None:
    ours = make_certificates(tmp_path)
    security = Security(tls_cert=ours.server_cert, tls_key=ours.server_key)
    async with serving(tmp_path, security=security) as server:
        listen = server.server.address
        found = await asyncio.to_thread(network.check_port, listen, held=False)
    assert found.state is State.BAD
    assert f"'agent health --server {listen} --tls-ca CA'" in found.remedy


def test_the_files_of_security(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    file.create("ci", Role.READ)
    settings = ServeSettings(
        data=tmp_path, listen="127.0.0.1:0", model="tiny", security=Security(tokens=file.path)
    )
    assert network.check_security(settings.listen, settings.security).found == "no TLS, tokens"
    file.path.chmod(0o644)
    [security] = [f for f in examination.examine(settings) if f.check == "security"]
    assert security.state is State.BAD
    assert "chmod 600" in security.found
