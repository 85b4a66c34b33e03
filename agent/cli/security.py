"""The options of `agent serve` for TLS and authentication."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from agent.config import Security

PANEL = "Security"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions:
    """See docs/how-to/secure-a-server.md."""

    tls_cert: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENT_TLS_CERT",
            help="Use TLS with this certificate of the server and its chain (PEM).",
            show_default="no TLS",
            rich_help_panel=PANEL,
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENT_TLS_KEY",
            help="Use this private key of --tls-cert (PEM).",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENT_TLS_CLIENT_CA",
            help="Require that clients show a certificate signed by this CA (mutual TLS).",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    tokens: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENT_TOKENS",
            help="Require that clients show a token of this file; 'agent tokens create' makes it.",
            show_default="anybody may do anything",
            rich_help_panel=PANEL,
        ),
    ] = None
    rate_limit: Annotated[
        float,
        typer.Option(
            envvar="AGENT_RATE_LIMIT",
            min=0,
            help="Accept at most this many calls a second from one client (a token, or else a"
            " machine); 0: any number. Each fact of a batch or a stream counts as a call.",
            rich_help_panel=PANEL,
        ),
    ] = 0.0
    insecure_listen: Annotated[
        bool,
        typer.Option(
            "--insecure-listen",
            envvar="AGENT_INSECURE_LISTEN",
            help="Listen without TLS and authentication even where other machines can connect.",
            rich_help_panel=PANEL,
        ),
    ] = False

    def chosen(self) -> Security:
        """As the server wants it."""
        return Security(
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            tls_client_ca=self.tls_client_ca,
            tokens=self.tokens,
            insecure_listen=self.insecure_listen,
            rate_limit=self.rate_limit,
        )
