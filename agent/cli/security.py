"""The options of `agent serve` that say who may speak to it."""

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
            help="The server's certificate, with its chain (PEM),",
            show_default="no TLS",
            rich_help_panel=PANEL,
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENT_TLS_KEY",
            help="and its private key.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENT_TLS_CLIENT_CA",
            help="Clients must show a certificate that this CA signed (mutual TLS).",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    tokens: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENT_TOKENS",
            help="Clients must show a token of this file; 'agent tokens create' makes it.",
            show_default="anybody may do anything",
            rich_help_panel=PANEL,
        ),
    ] = None
    rate_limit: Annotated[
        float,
        typer.Option(
            envvar="AGENT_RATE_LIMIT",
            min=0,
            help="Calls, and facts of a batch or stream, a second of one client (token, or else"
            " machine); 0: any number.",
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
