"""Who is at the other end of a connection, as gRPC names it."""

from __future__ import annotations


def host_of(peer: str) -> str:
    """The host of a peer such as `ipv4:10.0.0.1:1234`: each connection has a port of its own."""
    return peer.rpartition(":")[0] or peer
