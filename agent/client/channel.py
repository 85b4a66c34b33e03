"""The channel of a client: TLS, the token, retries, keepalive."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from agent.addresses import is_loopback, proxy_options
from agent.errors import ConfigError
from agent.server.access.transport import read_ca, read_pair
from agent.wire.methods import METHODS

# A silent server is pinged after the first time, and abandoned without a response after the second.
# Servers treat more than about one ping a minute as an attack.
KEEPALIVE_SECONDS, KEEPALIVE_TIMEOUT_SECONDS = 60.0, 20.0

# The largest answer that a client takes.
MAX_ANSWER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The certificates and the token of a client.

    Attributes:
        tls_ca: the CA that signed the server's certificate (PEM); None: no TLS.
        tls_cert: the client's own certificate, if the server asks for one.
        tls_key: the private key of `tls_cert`.
        token: printed by `agent tokens create`; empty if the server asks for none.
    """

    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token: str = field(default="", repr=False)


ANYBODY = Access()
Metadata = tuple[tuple[str, str], ...]


def open_channel(address: str, access: Access) -> tuple[grpc.Channel, Metadata]:
    """A channel, and the metadata that every call has to carry.

    Raises:
        ConfigError: a file is missing or not what it should be, or the token would travel in the
            clear.
    """
    credentials, metadata = _checked(address, access)
    options = _options(address, credentials)
    if credentials is None:
        return grpc.insecure_channel(address, options=options), metadata
    return grpc.secure_channel(address, credentials, options=options), metadata


def open_async_channel(address: str, access: Access) -> tuple[grpc.aio.Channel, Metadata]:
    """The same for asyncio.

    Raises:
        ConfigError: as above.
    """
    credentials, metadata = _checked(address, access)
    options = _options(address, credentials)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options), metadata
    return grpc.aio.secure_channel(address, credentials, options=options), metadata


def _options(address: str, credentials: grpc.ChannelCredentials | None) -> list[tuple[str, Any]]:
    return [*channel_options(), *proxy_options(address, tls=credentials is not None)]


def _checked(address: str, access: Access) -> tuple[grpc.ChannelCredentials | None, Metadata]:
    """Credentials of the channel (None: no TLS), and the metadata with the token, if any.

    The token is not part of the credentials: gRPC sends it that way over TLS only.
    """
    if access.tls_ca is None:
        if access.tls_cert is not None or access.tls_key is not None:
            raise ConfigError("--tls-cert and --tls-key need --tls-ca too")
        if access.token and not is_loopback(address):
            raise ConfigError(
                f"without TLS anybody on the way to {address} could read the token: name the CA of"
                " the server's certificate with --tls-ca FILE"
            )
        credentials = None
    else:
        credentials = _credentials(access, read_ca(access.tls_ca, "--tls-ca"))
    if not access.token:
        return credentials, ()
    if not access.token.isascii() or not access.token.isprintable():
        raise ConfigError("the token holds characters that no token has: copy it again")
    return credentials, (("authorization", f"Bearer {access.token}"),)


def _credentials(access: Access, ca: bytes) -> grpc.ChannelCredentials:
    if access.tls_cert is None and access.tls_key is None:
        return grpc.ssl_channel_credentials(root_certificates=ca)
    key, cert = read_pair(access.tls_cert, access.tls_key)
    return grpc.ssl_channel_credentials(
        root_certificates=ca, private_key=key, certificate_chain=cert
    )


def channel_options() -> Sequence[tuple[str, Any]]:
    """Returns options that retry repeatable calls, and detect a server that vanished."""
    return [
        ("grpc.service_config", json.dumps({"methodConfig": [_retries()]})),
        ("grpc.enable_retries", 1),
        # Connects soon after the port of a starting server opens.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.keepalive_time_ms", int(KEEPALIVE_SECONDS * 1000)),
        ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_SECONDS * 1000)),
        # grpcio 1.85 uses this one. Without it, it waits for a minute, whatever the line above
        # says.
        ("grpc.http2.ping_timeout_ms", int(KEEPALIVE_TIMEOUT_SECONDS * 1000)),
        # Servers stay far below it.
        ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
        # A stream of events may be silent for hours.
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _retries() -> dict[str, Any]:
    """Retries after UNAVAILABLE, when the server may or may not have done it; see `METHODS`."""
    repeatable = [name for name, method in METHODS.items() if method.repeatable]
    return {
        "name": [
            dict(zip(("service", "method"), name.strip("/").split("/"), strict=True))
            for name in repeatable
        ],
        "retryPolicy": {
            "maxAttempts": 4,
            "initialBackoff": "0.1s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }
