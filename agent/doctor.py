"""What `agent doctor` looks at: whether this machine can serve, and what to do where it cannot.

Each check is a function of its own that says what it found. None changes anything.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import grpc
import pysqlite3
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.addresses import proxy_options
from agent.config import DEFAULT_ADDRESS, DEFAULT_METRICS_HOST, DEFAULT_MODEL, Security
from agent.data_folder import is_held, is_open_to_others
from agent.errors import AgentError, ModelNotFoundError
from agent.file_systems import (
    MEMORY_FILE_SYSTEMS,
    NETWORK_FILE_SYSTEMS,
    WHY_NOT_NETWORK,
    existing,
    file_system_of,
)
from agent.learning import catalog
from agent.learning.catalog import ModelEntry, Source
from agent.service.server import LOCAL, MODEL_SERVICE
from agent.service.tokens import KnownTokens, TokenFile
from agent.service.transport import (
    require_safe_listen,
    server_credentials,
    why_not_listen,
)
from agent.upgrade import needs, survey
from memory_store.connection import MINIMUM_SQLITE, require_safe_sqlite
from memory_store.errors import MemoryStoreError, StoreUnusableError

GIB = 2**30
BYTES_A_WEIGHT = 4
# Served, working and base copy; a gradient and its direction while an update is made.
COPIES_IN_MEMORY = 5
# Libraries, activations, SQLite.
BESIDE_THE_WEIGHTS = GIB
# For whoever holds the port to say what they are.
ANSWER_SECONDS = 2.0
# The last three, one being written, and room for one a day that is kept longer.
SNAPSHOTS_ON_DISK = 5
DATABASE_ROOM = GIB // 4
# Every accepted fact waits for one sync of the disk, alone or with others.
SLOW_SYNC_MS, UNUSABLE_SYNC_MS = 30.0, 500.0
SYNCS = 15
# No clock that is right shows an earlier time.
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)


class State(StrEnum):
    """How bad it is."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at.
        state: how bad it is; only bad keeps a server from working.
        found: what there is.
        remedy: what to do about it; empty if nothing.
    """

    check: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """The server that is to run here; see `ServeSettings`."""

    data: Path
    listen: str = DEFAULT_ADDRESS
    model: str = DEFAULT_MODEL
    device: str = "auto"
    security: Security = field(default_factory=Security)
    metrics_port: int | None = None
    metrics_host: str = DEFAULT_METRICS_HOST
    allow_network_filesystem: bool = False


def examine(patient: Patient) -> Iterator[Finding]:
    """Makes every check; one that breaks is a finding too."""
    checks: Sequence[tuple[str, Callable[[], Finding]]] = (
        ("python", check_python),
        ("device", lambda: check_device(patient.device, needed_memory(patient.model))),
        ("memory", lambda: check_memory(available_memory(), needed_memory(patient.model))),
        ("sqlite", lambda: check_sqlite(pysqlite3.sqlite_version_info)),
        ("data folder", lambda: check_folder(patient.data)),
        ("disk kind", lambda: _check_disk(patient)),
        ("disk speed", lambda: check_sync(sync_milliseconds(existing(patient.data)))),
        ("disk space", lambda: check_space(free_bytes(patient.data), weights(patient.model))),
        ("model", lambda: check_model(patient.model)),
        ("upgrade", lambda: check_upgrade(patient.data)),
        ("clock", lambda: check_clock(datetime.now(UTC), newest_change(patient.data))),
        ("port", lambda: _check_port_of(patient)),
        ("security", lambda: check_security(patient.listen, patient.security)),
    )
    if (port := patient.metrics_port) is not None:
        held = is_held(patient.data)
        checks = (
            *checks,
            ("metrics", lambda: check_metrics(patient.metrics_host, port, held=held)),
        )
    for name, check in checks:
        try:
            yield check()
        except (AgentError, MemoryStoreError, OSError) as error:
            yield Finding(check=name, state=State.BAD, found=str(error))


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """3.11 or newer."""
    found = f"{platform.python_implementation()} {'.'.join(map(str, version))}"
    if version < (3, 11):
        return _bad("python", found, "install Python 3.11 or newer")
    return _good("python", found)


def check_device(device: str, needed: int | None) -> Finding:
    """The one that is asked for exists, and its memory holds the model."""
    # Imported late: torch takes seconds.
    import torch

    from agent.learning.environment import device_name
    from agent.learning.model import choose_device

    chosen = choose_device(device)  # raises with a remedy
    if chosen.type == "cpu":
        return _good("device", f"cpu, {os.cpu_count()} threads, torch {torch.__version__}")
    free, total = torch.cuda.mem_get_info(chosen)
    found = f"{device_name(chosen)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if needed is not None and free < needed:
        return _bad(
            "device",
            f"{found}; the model needs about {needed / GIB:.1f}",
            "end what else uses the GPU, choose a smaller --model, or --device cpu",
        )
    return _good("device", found)


def check_memory(available: int, needed: int | None) -> Finding:
    """The machine's holds the model as it learns."""
    found = f"{available / GIB:.1f} GiB available"
    if needed is None:
        return _good("memory", found)
    found += f", the model needs about {needed / GIB:.1f}"
    if available < needed:
        return _bad("memory", found, "end other programs, or choose a smaller --model")
    return _good("memory", found)


def check_sqlite(version: tuple[int, ...]) -> Finding:
    """New enough not to lose committed rows (the WAL-reset bug)."""
    try:
        require_safe_sqlite(version)
    except StoreUnusableError as error:
        return _bad("sqlite", str(error), "pip install 'pysqlite3>=0.6.1'")
    needed = ".".join(map(str, MINIMUM_SQLITE))
    return _good("sqlite", f"{'.'.join(map(str, version))}, {needed} or newer is needed")


def check_folder(folder: Path) -> Finding:
    """It is a folder, ours, writable, and closed to others; a missing one can be made."""
    nearest = existing(folder)
    if not nearest.is_dir():
        return _bad("data folder", f"{nearest} is a file", "name another folder with --data")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return _bad(
            "data folder",
            f"{nearest} cannot be written to",
            "run the server as its owner, or name another folder with --data",
        )
    if nearest != folder.absolute():
        return _good("data folder", f"{folder} is made at the first start")
    if is_open_to_others(folder):
        return _bad("data folder", f"{folder} is open to other users", f"chmod 700 {folder}")
    return _good("data folder", f"{folder}" + (", in use by a server" if is_held(folder) else ""))


def check_file_system(kind: str, *, allow_network: bool = False) -> Finding:
    """A disk of this machine."""
    if kind in NETWORK_FILE_SYSTEMS:
        found = f"{kind}, a network file system: {WHY_NOT_NETWORK}"
        remedy = "name a folder on a local disk with --data"
        return (_warning if allow_network else _bad)("disk kind", found, remedy)
    if kind in MEMORY_FILE_SYSTEMS:
        return _warning(
            "disk kind",
            f"{kind}, which is memory: all is lost when the machine is switched off",
            "name a folder on a disk with --data",
        )
    return _good("disk kind", kind)


def _check_disk(patient: Patient) -> Finding:
    kind = file_system_of(existing(patient.data))
    return check_file_system(kind, allow_network=patient.allow_network_filesystem)


def check_sync(milliseconds: float) -> Finding:
    """A sync is quick enough: `Teach` waits for one."""
    found = f"{milliseconds:.2f} ms for a sync"
    remedy = "use a faster disk (an SSD with its own power reserve syncs in well under 1 ms)"
    if milliseconds > UNUSABLE_SYNC_MS:
        return _bad("disk speed", found, remedy)
    if milliseconds > SLOW_SYNC_MS:
        return _warning("disk speed", f"{found}, and each fact waits for one", remedy)
    return _good("disk speed", found)


def check_space(free: int, weights_bytes: int | None) -> Finding:
    """Room for the database and the snapshots that are kept."""
    size = weights_bytes or 0
    found = f"{free / GIB:.1f} GiB free"
    remedy = "free some, or name a folder on a larger disk with --data"
    if free < size + DATABASE_ROOM:
        return _bad("disk space", f"{found}, less than one snapshot needs", remedy)
    wanted = SNAPSHOTS_ON_DISK * size + DATABASE_ROOM
    if free < wanted:
        return _warning("disk space", f"{found} of {wanted / GIB:.1f} for some snapshots", remedy)
    return _good("disk space", found)


def check_model(name: str) -> Finding:
    """It is known, and on this machine."""
    entry = catalog.resolve(name)  # raises with a remedy
    if not catalog.is_cached(entry):
        return _warning(
            "model", f"{name} is not on this machine yet", f"agent models pull {name}, beforehand"
        )
    return _good("model", f"{name} is on this machine")


def check_upgrade(data: Path) -> Finding:
    """This release can serve the memory that there is, and the next one could too."""
    found = survey(data)
    if found is None:
        return _good("upgrade", "there is no memory yet")
    needed = list(needs(found))
    told = f"{found}. " + "; ".join(need.what for need in needed)
    remedy = "; ".join(need.remedy for need in needed if need.remedy)
    if any(need.serious for need in needed):
        return _bad("upgrade", told, remedy)
    if remedy:
        return _warning("upgrade", told, remedy)
    return _good("upgrade", told.strip(" ."))


def check_clock(now: datetime, newest: datetime | None) -> Finding:
    """It shows no time that is over: reviews and snapshots go by it."""
    found = now.isoformat(timespec="seconds")
    if now < EARLIEST or (newest is not None and now < newest):
        seen = "" if newest is None else f", but the data folder has seen {newest:%Y-%m-%d %H:%M}"
        return _bad("clock", found + seen, "set the machine's clock, and keep it set (NTP)")
    return _good("clock", found)


def check_port(listen: str, *, held: bool, security: Security = LOCAL) -> Finding:
    """It can be listened on, or the server of this data folder does.

    Args:
        listen: the address.
        held: whether a server runs on the data folder.
        security: of the server.
    """
    if (reason := why_not_listen(listen)) is None:
        return _good("port", f"{listen} is free")
    remedy = "choose another --listen HOST:PORT"
    if security.tls_cert is not None or _speaks_tls(listen):
        if held:
            return _good("port", f"{listen} is taken, and a server runs on the data folder")
        ask = f"agent health --server {listen} --tls-ca CA"
        remedy = f"a server with TLS runs there: ask '{ask}' whether it is ours, or {remedy}"
    elif _is_ours(listen):
        if held:
            return _good("port", f"{listen} is taken, and a server runs on the data folder")
        reason += ": a server of this program runs there, on other data"
    return _bad("port", f"cannot listen on {listen}: {reason}", remedy)


def _check_port_of(patient: Patient) -> Finding:
    return check_port(patient.listen, held=is_held(patient.data), security=patient.security)


def check_metrics(host: str, port: int, *, held: bool) -> Finding:
    """Metrics can be served there, or the server of this data folder does."""
    listen = f"{host}:{port}"
    if (reason := why_not_listen(listen)) is None:
        return _good("metrics", f"{listen} is free")
    if held:
        return _warning(
            "metrics",
            f"{listen} is taken, and a server runs on the data folder",
            f"look whether they are its metrics: http://{listen}/metrics",
        )
    return _bad(
        "metrics", f"cannot serve metrics on {listen}: {reason}", "choose another --metrics-port"
    )


def _is_ours(listen: str) -> bool:
    """Whether a server of this program answers there: its health service knows our services."""
    options = list(proxy_options(listen, tls=False))
    with grpc.insecure_channel(listen, options=options) as channel:
        asked = health_pb2.HealthCheckRequest(service=MODEL_SERVICE)
        try:
            health_pb2_grpc.HealthStub(channel).Check(asked, timeout=ANSWER_SECONDS)
        except grpc.RpcError:
            return False
    return True


def _speaks_tls(listen: str) -> bool:
    """Whether HTTP/2 over TLS is spoken there, by whomever: only who has its CA can know more."""
    host, _, port = listen.rpartition(":")
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    anyone.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as plain,
            anyone.wrap_socket(plain) as encrypted,
        ):
            return encrypted.selected_alpn_protocol() == "h2"
    except (OSError, ValueError):
        return False


def check_security(listen: str, security: Security) -> Finding:
    """The files are usable, and nobody else can connect unchecked."""
    require_safe_listen(listen, security)  # these raise with a remedy
    tls = "TLS" if server_credentials(security) else "no TLS"
    if security.tls_client_ca:
        tls = "mutual TLS"
    if security.tokens:
        KnownTokens(TokenFile(security.tokens))
    return _good("security", f"{tls}, {'tokens' if security.tokens else 'no tokens'}")


# --- Measuring ------------------------------------------------------------------------------------


def weights(model: str) -> int | None:
    """Bytes of a model's weights in fp32; None if it is not known."""
    try:
        entry = catalog.resolve(model)
    except ModelNotFoundError:
        return None
    if entry.parameters is not None:
        return entry.parameters * BYTES_A_WEIGHT
    folder = _folder(entry)
    if folder is None:
        return None
    # At least: files in half precision double.
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) or None


def _folder(entry: ModelEntry) -> Path | None:
    if entry.source is Source.HUB:
        return catalog.cached_snapshot(entry.location)
    return Path(entry.location) if entry.source is Source.FOLDER else None


def needed_memory(model: str) -> int | None:
    """Bytes that learning with a model takes, about; None if it is not known."""
    size = weights(model)
    return None if size is None else COPIES_IN_MEMORY * size + BESIDE_THE_WEIGHTS


def available_memory() -> int:
    """Bytes that this process may still take, a container's limit included."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    available = int(found[1]) * 1024 if found else 0
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
    except OSError:
        return available
    return available if limit.strip() == "max" else min(available, int(limit) - int(used))


def sync_milliseconds(folder: Path) -> float:
    """The median time to have a page on the disk, as a commit does."""
    taken = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(SYNCS):
            file.write(bytes(4096))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


def free_bytes(folder: Path) -> int:
    """On the disk that the folder is, or would be, on."""
    return shutil.disk_usage(existing(folder)).free


def newest_change(folder: Path) -> datetime | None:
    """When anything in a data folder was written last; None if there is nothing."""
    if not folder.is_dir():
        return None
    times = [file.stat().st_mtime for file in folder.iterdir()]
    return datetime.fromtimestamp(max(times), UTC) if times else None


def _good(check: str, found: str) -> Finding:
    return Finding(check=check, state=State.GOOD, found=found)


def _warning(check: str, found: str, remedy: str) -> Finding:
    return Finding(check=check, state=State.WARNING, found=found, remedy=remedy)


def _bad(check: str, found: str, remedy: str) -> Finding:
    return Finding(check=check, state=State.BAD, found=found, remedy=remedy)
