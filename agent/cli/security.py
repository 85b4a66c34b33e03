"""The options of `agent serve` for TLS and authentication."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from agent.config import Security


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions:
    """See docs/how-to/secure-a-server.md."""

    PANEL: ClassVar = "Security"

    tls_cert: Annotated[
        Path | None,
        typer.Option(
            help="Use TLS with this certificate of the server and its chain (PEM).",
            show_default="no TLS",
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        typer.Option(help="Use this private key of --tls-cert (PEM).", show_default=False),
    ] = None
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            help="Require that clients show a certificate signed by this CA (mutual TLS).",
            show_default=False,
        ),
    ] = None
    tokens: Annotated[
        Path | None,
        typer.Option(
            help="Require that clients show a token of this file; 'agent tokens create' makes it.",
            show_default="anybody may do anything",
        ),
    ] = None
    rate_limit: Annotated[
        float,
        typer.Option(
            min=0,
            help="Accept at most this many calls a second from one client (a token, or else a"
            " machine); 0: any number. Each fact of a batch or a stream counts as a call.",
        ),
    ] = 0.0
    insecure_listen: Annotated[
        bool,
        typer.Option(
            "--insecure-listen",
            help="Listen without TLS and authentication even where other machines can connect.",
        ),
    ] = False

    def chosen(self) -> Security:
        """Returns the settings."""
        return Security(**asdict(self))
