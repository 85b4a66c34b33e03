"""The server's transport: listening addresses, TLS, keepalive and limits of connections."""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from agent.addresses import (
    LONGEST_SOCKET_PATH,
    SCHEMES,
    UNIX,
    UNIX_ABSTRACT,
    is_loopback,
    socket_path,
)
from agent.config import Security
from agent.errors import ConfigError

# The largest valid request is far smaller: 33 questions of 4,000 characters.
MAX_REQUEST_BYTES = 1024 * 1024
MAX_METADATA_BYTES = 8 * 1024
IN_USE = os.strerror(errno.EADDRINUSE)
# Concurrent calls of one connection. More calls wait at the client.
MAX_CONCURRENT_CALLS = 1024
# A silent client is pinged after this time, and disconnected without a response after that time.
KEEPALIVE_SECONDS, KEEPALIVE_TIMEOUT_SECONDS = 120, 20
# Clients that ping more often are disconnected. Ours pings once a minute (see `channel`).
LEAST_PING_SECONDS = 50

# A connection is closed without HTTP/2 after the first time, without calls after the second.
HANDSHAKE_SECONDS, IDLE_SECONDS = 20, 30 * 60
# Open connections; fewer if the limit of open files is low. Database and snapshots need some too.
MAX_CONNECTIONS, OTHER_FILES = 4_000, 256

SERVER_OPTIONS: Sequence[tuple[str, int]] = (
    # Otherwise a second server could bind the same port without an error.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_CONCURRENT_CALLS),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
    ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
    ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
    # grpcio 1.85 uses this one. Without it, it waits for a minute, whatever the line above says.
    ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
    ("grpc.http2.min_ping_interval_without_data_ms", LEAST_PING_SECONDS * 1000),
)


def server_options() -> list[tuple[str, int]]:
    """Returns the options of every server, with a limit of connections for this process."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_CONNECTIONS
    if files != resource.RLIM_INFINITY:
        most = max(1, min(most, files - OTHER_FILES))
    return [*SERVER_OPTIONS, ("grpc.max_allowed_incoming_connections", most)]


def require_safe_listen(listen: str, security: Security) -> None:
    """Refuses an address that would admit strangers by accident.

    Raises:
        ConfigError: others can connect to the address, but TLS or authentication is missing; or it
            is not an address.
    """
    if ":" not in listen:
        raise ConfigError(f"'{listen}' is no HOST:PORT: give, say, 127.0.0.1:50051")
    if security.insecure_listen:
        return
    if listen.startswith((UNIX, UNIX_ABSTRACT)):
        _require_safe_socket(listen, security)
        return
    if is_loopback(listen):
        return
    missing = []
    if security.tls_cert is None:
        missing.append("TLS (--tls-cert FILE --tls-key FILE)")
    if security.tokens is None and security.tls_client_ca is None:
        missing.append("authentication (--tokens FILE, or --tls-client-ca FILE)")
    if missing:
        raise ConfigError(
            f"{listen} can be reached from other machines, so it needs {' and '.join(missing)};"
            " or listen on 127.0.0.1; or say --insecure-listen if something else protects it"
        )


def _require_safe_socket(listen: str, security: Security) -> None:
    """Checks a socket. Only the owner can connect to one in the file system (`private_socket`).

    Raises:
        ConfigError: other users of this machine could connect, or replace the socket.
    """
    if listen.startswith(UNIX_ABSTRACT):
        if security.tokens is None and security.tls_client_ca is None:
            raise ConfigError(
                f"any user of this machine can connect to {listen}, so it needs --tokens FILE;"
                " or use unix:PATH, which only you can connect to; or say --insecure-listen"
            )
        return
    folder = socket_path(listen).absolute().parent
    try:
        mode = folder.stat().st_mode
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {listen}: the folder {folder}: {error.strerror}"
        ) from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        raise ConfigError(
            f"others could replace the socket {listen}: the folder {folder} is open to their"
            " writing; make it private (chmod 700), or say --insecure-listen"
        )


@contextmanager
def private_socket(listen: str, security: Security) -> Iterator[None]:
    """Makes socket files that are created inside private, unless clients must authenticate.

    Connecting needs write permission. If tokens or certificates are required, the usual mask
    applies, so that other users can be admitted.
    """
    protected = security.tokens is not None or security.tls_client_ca is not None
    if not listen.startswith(UNIX) or protected or security.insecure_listen:
        yield
        return
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def require_free(listen: str) -> None:
    """Checks early whether another server listens there. Only binding shows for certain.

    Raises:
        ConfigError: the address is in use.
    """
    if not listen.startswith((UNIX, UNIX_ABSTRACT)) and why_not_listen(listen) == IN_USE:
        raise address_in_use(listen)


def why_not_listen(listen: str) -> str | None:
    """Returns why a server could not listen on an address now; None if it could."""
    if listen.startswith(UNIX_ABSTRACT):
        return _why_not_bind(socket.AF_UNIX, "\0" + listen.removeprefix(UNIX_ABSTRACT))
    if listen.startswith(UNIX):
        return _why_not_at(socket_path(listen))
    for scheme in SCHEMES:
        listen = listen.removeprefix(scheme)
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) >= 2**16:
        return "it is no HOST:PORT with a port of 0 to 65535"
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        return error.strerror or str(error)
    reasons = [_why_not_bind(family, address) for family, _, _, _, address in found]
    # Addresses of a family that this machine lacks are ignored. One in use counts.
    taken = [reason for reason in reasons if reason == IN_USE]
    if taken or None not in reasons:
        return (taken or reasons)[0]
    return None


def _why_not_bind(family: int, address: Any) -> str | None:
    """Binds and listens as gRPC does, for a moment; returns the error, if any."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if family != socket.AF_UNIX:
                # Connections that are closing do not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _why_not_at(path: Path) -> str | None:
    """Checks a path without binding, which would replace a socket that is in use."""
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        return f"the path is longer than {LONGEST_SOCKET_PATH} bytes"
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        return f"nothing can be made in the folder {path.absolute().parent}"
    if not path.exists():
        return None
    if not path.is_socket():
        return "there is a file that is no socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(os.fspath(path))
        except ConnectionRefusedError:
            return None  # a leftover of a killed server
        except OSError as error:
            return error.strerror or str(error)
    return IN_USE


def address_in_use(listen: str) -> ConfigError:
    """Makes the error of a server that cannot listen."""
    return ConfigError(
        f"cannot listen on {listen}: is another server running there?"
        " Choose another address with --listen HOST:PORT (port 0: any free one)"
    )


def server_credentials(security: Security) -> grpc.ServerCredentials | None:
    """The server's side of TLS; None without it.

    Raises:
        ConfigError: a file is missing or no such thing, or the settings do not fit together.
    """
    cert, key, client_ca = security.tls_cert, security.tls_key, security.tls_client_ca
    if cert is None and key is None:
        if client_ca is not None:
            raise ConfigError("--tls-client-ca needs --tls-cert and --tls-key too")
        return None
    pair = read_pair(cert, key)
    return grpc.ssl_server_credentials(
        [pair],
        root_certificates=None if client_ca is None else read_ca(client_ca, "--tls-client-ca"),
        require_client_auth=client_ca is not None,
    )


def read_pair(cert: Path | None, key: Path | None) -> tuple[bytes, bytes]:
    """A private key and its certificate chain, in this order, as gRPC wants them.

    Raises:
        ConfigError: one is not named, missing or damaged, or they do not belong together.
    """
    if cert is None or key is None:
        raise ConfigError("--tls-cert and --tls-key go together: name both files")
    # gRPC itself would take anything, and fail at every handshake.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=lambda: b"")  # never ask at a terminal
    except ssl.SSLError as error:
        raise ConfigError(
            f"{cert} and {key} are not a certificate and its unencrypted private key, both PEM"
            f" ({error.reason or error})"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read the certificate {cert} or its key {key}: {error}"
        ) from error
    return key.read_bytes(), cert.read_bytes()


def read_ca(path: Path, option: str) -> bytes:
    """The certificates of a CA.

    Raises:
        ConfigError: the file is missing, or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigError(f"{option}: {path} holds no certificate (PEM)") from error
    except OSError as error:
        raise ConfigError(f"{option}: cannot read {path}: {error.strerror}") from error
    return path.read_bytes()
