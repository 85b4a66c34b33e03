"""Ports, TLS and authentication."""

from __future__ import annotations

import socket
import ssl

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.addresses import proxy_options
from agent.config import Security
from agent.doctor.findings import Finding, bad, good, warning
from agent.server.access.tokens import KnownTokens, TokenFile
from agent.server.access.transport import require_safe_listen, server_credentials, why_not_listen
from agent.server.api.server import LOCAL, MODEL_SERVICE

# The longest wait for an answer of whatever uses the port.
ANSWER_SECONDS = 2.0


def check_port(listen: str, *, held: bool, security: Security = LOCAL) -> Finding:
    """The port is free, or the server of this data folder uses it.

    Args:
        listen: the address.
        held: whether a server runs on the data folder.
        security: of the server.
    """
    if (reason := why_not_listen(listen)) is None:
        return good(f"{listen} is free")
    remedy = "choose another --listen HOST:PORT"
    if security.tls_cert is not None or _speaks_tls(listen):
        if held:
            return good(f"{listen} is taken, and a server runs on the data folder")
        ask = f"agent health --server {listen} --tls-ca CA"
        remedy = f"a server with TLS runs there: ask '{ask}' whether it is ours, or {remedy}"
    elif _is_ours(listen):
        if held:
            return good(f"{listen} is taken, and a server runs on the data folder")
        reason += ": a server of this program runs there, on other data"
    return bad(f"cannot listen on {listen}: {reason}", remedy)


def check_metrics(host: str, port: int, *, held: bool) -> Finding:
    """The port of metrics is free, or the server of this data folder uses it."""
    listen = f"{host}:{port}"
    if (reason := why_not_listen(listen)) is None:
        return good(f"{listen} is free")
    if held:
        return warning(
            f"{listen} is taken, and a server runs on the data folder",
            f"look whether they are its metrics: http://{listen}/metrics",
        )
    return bad(f"cannot serve metrics on {listen}: {reason}", "choose another --metrics-port")


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
    """Whether a server speaks HTTP/2 over TLS there. More is unknown without its CA."""
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
    """The files are usable, and strangers cannot connect."""
    require_safe_listen(listen, security)  # these raise with a remedy
    tls = "TLS" if server_credentials(security) else "no TLS"
    if security.tls_client_ca:
        tls = "mutual TLS"
    if security.tokens:
        KnownTokens(TokenFile(security.tokens))
    return good(f"{tls}, {'tokens' if security.tokens else 'no tokens'}")
