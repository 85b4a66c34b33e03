"""What lies under the calls on the client's side: TLS, the token, repeated calls, signs of life."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from agent.addresses import is_loopback, proxy_options
from agent.errors import ConfigError
from agent.service.methods import METHODS
from agent.service.transport import read_ca, read_pair

# A server that has been silent so long is asked whether it is still there, and left after that.
# Servers take more than about one question a minute for an attack.
KEEPALIVE_SECONDS, KEEPALIVE_TIMEOUT_SECONDS = 60.0, 20.0

# The largest answer that a client takes.
MAX_ANSWER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a client is let in.

    Attributes:
        tls_ca: the CA that signed the server's certificate (PEM); None: no TLS.
        tls_cert: the client's own certificate, where the server asks for one.
        tls_key: and its private key.
        token: what `agent tokens create` printed; empty where the server wants none.
    """

    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token: str = field(default="", repr=False)


ANYBODY = Access()


def open_channel(address: str, access: Access) -> grpc.Channel:
    """A channel on which every call is let in as `access` says.

    Raises:
        ConfigError: a file is missing or no such thing, or the token would travel in the clear.
    """
    credentials, header = _checked(address, access)
    options = [*channel_options(), *proxy_options(address, tls=credentials is not None)]
    if credentials is None:
        channel = grpc.insecure_channel(address, options=options)
    else:
        channel = grpc.secure_channel(address, credentials, options=options)
    return grpc.intercept_channel(channel, _Bearer(*header)) if header else channel


def open_async_channel(
    address: str, access: Access
) -> tuple[grpc.aio.Channel, tuple[tuple[str, str], ...]]:
    """The same for asyncio, and the metadata that every call has to carry.

    Raises:
        ConfigError: as above.
    """
    credentials, header = _checked(address, access)
    options = [*channel_options(), *proxy_options(address, tls=credentials is not None)]
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options), header
    return grpc.aio.secure_channel(address, credentials, options=options), header


def _checked(
    address: str, access: Access
) -> tuple[grpc.ChannelCredentials | None, tuple[tuple[str, str], ...]]:
    """What a channel is made with: credentials (None: no TLS), and the token's header if any."""
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
    """Repeats what may be repeated, and notices a server that is gone without a word."""
    return [
        ("grpc.service_config", json.dumps({"methodConfig": [_repeating()]})),
        ("grpc.enable_retries", 1),
        # A server that is starting is met soon after its port opens, however long that takes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.keepalive_time_ms", int(KEEPALIVE_SECONDS * 1000)),
        ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_SECONDS * 1000)),
        # What grpcio 1.85 really waits for: without it a minute, whatever the line above says.
        ("grpc.http2.ping_timeout_ms", int(KEEPALIVE_TIMEOUT_SECONDS * 1000)),
        # Servers keep far below it; an older one does not.
        ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
        # While events are watched, nothing may happen for hours.
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _repeating() -> dict[str, Any]:
    """The connection broke, or the server says "not now": it may or may not have done it."""
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


class _Bearer(  # generic in the stubs only, which also tell four kinds of calls apart
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]
):
    """Adds the token to every call. gRPC's own way to do it works over TLS only."""

    def __init__(self, header: tuple[str, str]) -> None:
        self._header = header

    def _with_token(
        self, continuation: Callable[[Any, Any], Any], details: Any, request: Any
    ) -> Any:
        metadata = [*(details.metadata or ()), self._header]
        return continuation(details._replace(metadata=metadata), request)

    intercept_unary_unary = _with_token  # type: ignore[assignment]
    intercept_unary_stream = _with_token  # type: ignore[assignment]
    intercept_stream_stream = _with_token  # type: ignore[assignment]
