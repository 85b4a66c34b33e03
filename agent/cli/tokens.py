"""`agent tokens create | list | revoke`: manages who may call a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from agent.cli.options import Json
from agent.cli.output import console, messages, print_json, shown, some_of
from agent.errors import ConfigError
from agent.server.access.tokens import Token, TokenFile
from agent.wire.methods import Role

app = typer.Typer(
    help="Tokens for the clients of a server, in a file on its machine ('agent serve --tokens').",
    no_args_is_help=True,
)

TokensFile = Annotated[
    Path,
    typer.Option(
        "--tokens",
        envvar="AGENT_TOKENS",
        help="Use this file of tokens, which the server is started with too.",
    ),
]


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(help="Name of the person or the program that the token is for.")
    ],
    role: Annotated[
        Role,
        typer.Option(
            help="Allow this role. read: ask, look and watch. teach: also teach and probe. admin:"
            " everything."
        ),
    ],
    tokens: TokensFile,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the token into this new file, which only you can read; do not print it.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make a token and print it, this once: it is not stored. A running server accepts it."""
    if out is not None and out.exists():
        raise typer.BadParameter(f"{out} exists: choose another name", param_hint="--out")
    file = TokenFile(tokens)
    if out is not None:
        token = _create_in(out, file, name, role)
        messages.print(shown(f"token {token.id} for {token.name}, role {token.role}, is in {out}"))
        if json:
            print_json({**_token_json(token), "file": str(out)})
        return
    token, presented = file.create(name, role)
    if json:
        print_json({**_token_json(token), "token": presented})
        return
    messages.print(
        shown(f"token {token.id} for {token.name}, role {token.role}; it is shown only now:")
    )
    typer.echo(presented)


@app.command("list")
def list_tokens(tokens: TokensFile, json: Json = False) -> None:
    """List the tokens, oldest first."""
    found = TokenFile(tokens).read()
    if json:
        print_json({"tokens": [_token_json(token) for token in found]})
        return
    table = Table("id", "name", "role", "made")
    for token in found:
        table.add_row(
            shown(token.id), shown(token.name), token.role.value, shown(token.created_at[:19])
        )
    console.print(table)


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="Id of the token; 'agent tokens list' shows it.")],
    tokens: TokensFile,
    json: Json = False,
) -> None:
    """Revoke a token. A running server refuses it from its next call on."""
    token = TokenFile(tokens).revoke(token_id)
    if json:
        print_json(_token_json(token))
    else:
        messages.print(shown(f"revoked the token {token.id} of {token.name}"))


def _create_in(path: Path, tokens: TokenFile, name: str, role: Role) -> Token:
    """Creates a token and a new file with it; neither without the other.

    Raises:
        ConfigError: one of the files cannot be written.
    """
    try:
        # Created with private permissions.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot write the token to {path} ({error.strerror}): choose another place"
        ) from error
    try:
        token, presented = tokens.create(name, role)
        try:
            os.write(descriptor, f"{presented}\n".encode())
        except OSError as error:
            tokens.revoke(token.id)
            raise ConfigError(
                f"cannot write the token to {path} ({error.strerror}); it is revoked: make room,"
                " or choose another place"
            ) from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return token


def _token_json(token: Token) -> dict[str, Any]:
    return some_of(token, "id name role created_at")
