"""The options of every command that calls a server, and the client that they describe."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from agent.cli.output import messages, shown
from agent.client.channel import Access
from agent.client.client import Client
from agent.client.types import Status
from agent.config import DEFAULT_ADDRESS
from agent.errors import AgentError, ConfigError, ServerUnreachableError

PANEL = "Connection"

StartTimeout = Annotated[
    float,
    typer.Option(
        "--start-timeout",
        envvar="AGENT_START_TIMEOUT",
        min=0,
        help="Wait at most this many seconds for a server that is starting; 0 does not wait.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Which server to call, and how to authenticate."""

    PANEL: ClassVar = PANEL

    server: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Call the server at this address, HOST:PORT or HOST."),
    ] = DEFAULT_ADDRESS
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            help="Use TLS, and trust a server whose certificate this CA signed (PEM).",
            show_default=False,
        ),
    ] = None
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENT_CLIENT_CERT",
            help="Show this certificate to a server that asks for one (PEM).",
            show_default=False,
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENT_CLIENT_KEY",
            help="Use this private key of --tls-cert (PEM).",
            show_default=False,
        ),
    ] = None
    token: Annotated[
        str | None,
        typer.Option(
            help="Authenticate with this token. Other users of this machine can see a flag: use the"
            " variable or --token-file instead.",
            show_default=False,
        ),
    ] = field(default=None, repr=False)
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="Authenticate with the token in this file, which holds nothing else.",
            show_default=False,
        ),
    ] = None

    def client(self) -> Client:
        """A client of that server; close it.

        Raises:
            ConfigError: a named file cannot be used.
        """
        client = Client(self.address, self.access())
        if self.token is not None and self.token != os.environ.get("AGENT_TOKEN"):
            messages.print(
                "--token can be read by every user of this machine while the command runs:"
                " use --token-file FILE or AGENT_TOKEN"
            )
        return client

    @property
    def address(self) -> str:
        """The server's address, with a port."""
        return with_port(self.server)

    def access(self) -> Access:
        """The certificates and the token to authenticate with.

        Raises:
            ConfigError: the file of the token cannot be read.
        """
        return Access(
            tls_ca=self.tls_ca, tls_cert=self.tls_cert, tls_key=self.tls_key, token=self._token()
        )

    def _token(self) -> str:
        if self.token is not None:
            return self.token.strip()
        if self.token_file is None:
            return ""
        try:
            return self.token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(
                f"cannot read the token in {self.token_file}: {error.strerror}"
            ) from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.token_file} holds no token, but other bytes") from error


def wait_accepting(client: Client, seconds: float) -> None:
    """Waits until the server accepts facts; reports why it waits.

    Raises:
        AgentError: it does not accept facts in time.
    """
    client.wait_accepting(seconds, _reporting(client, seconds))


def wait_ready(client: Client, seconds: float) -> Status:
    """Waits until the model can be asked; see `wait_accepting`."""
    return client.wait_ready(seconds, _reporting(client, seconds))


def _reporting(client: Client, seconds: float) -> Callable[[AgentError], None]:
    def report(reason: AgentError) -> None:
        what = str(reason)
        if isinstance(reason, ServerUnreachableError):
            what = f"no server answers at {client.address} yet ('agent serve' starts one)"
        messages.print(
            shown(f"{what}: waiting up to {seconds:g} s"), style="yellow", soft_wrap=True
        )

    return report


def with_port(server: str) -> str:
    """Adds the default port to an address without one."""
    before, colon, port = server.rpartition(":")
    named = bool(colon) and not port.endswith("]") and (":" not in before or before.endswith("]"))
    if named or server.startswith(("unix:", "unix-abstract:")) or "//" in server:
        return server
    host = f"[{server}]" if ":" in server and not server.endswith("]") else server
    return f"{host}:{DEFAULT_ADDRESS.rpartition(':')[2]}"
