"""Addresses of servers: which are on this machine, and what a proxy may carry."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

# gRPC's other ways to write HOST:PORT. A resolver that is named (dns://RESOLVER/HOST) is not one.
SCHEMES = ("dns:///", "dns:", "ipv4:", "ipv6:")
UNIX, UNIX_ABSTRACT = "unix:", "unix-abstract:"
# The length of `sun_path` in `sockaddr_un`, without the final zero.
LONGEST_SOCKET_PATH = 107


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT is on this machine; in doubt not."""
    if address.startswith((UNIX, UNIX_ABSTRACT)):
        return True
    for scheme in SCHEMES:
        if address.startswith(scheme):
            address = address.removeprefix(scheme)
            break
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def proxy_options(address: str, *, tls: bool) -> Sequence[tuple[str, int]]:
    """Options of a channel that keep it away from a proxy in the environment.

    A proxy sees what is not encrypted, tokens and facts included, and this machine needs none to
    speak to itself. Over TLS it only passes bytes on (CONNECT), so there it is allowed.
    """
    return () if tls and not is_loopback(address) else (("grpc.enable_http_proxy", 0),)


def socket_path(listen: str) -> Path:
    """The file of `unix:PATH` or `unix:///PATH`."""
    path = listen.removeprefix(UNIX)
    return Path(path.removeprefix("//") if path.startswith("///") else path)
