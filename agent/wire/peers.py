"""The names that gRPC gives to the other end of a connection."""

from __future__ import annotations


def host_of(peer: str) -> str:
    """Returns the host of a peer such as `ipv4:10.0.0.1:1234`, without the port."""
    return peer.rpartition(":")[0] or peer
