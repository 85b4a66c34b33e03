"""`agent pause | resume`: pauses and resumes learning."""

from __future__ import annotations

from agent.cli.connection import Connection
from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import messages, print_json


@grouped
def pause(*, connection: Connection, json: Json = False) -> None:
    """Stop learning, restarts included, until 'agent resume'. Facts are still accepted."""
    _pause(connection, json, paused=True)


@grouped
def resume(*, connection: Connection, json: Json = False) -> None:
    """Resume learning after 'agent pause'."""
    _pause(connection, json, paused=False)


def _pause(connection: Connection, json: bool, *, paused: bool) -> None:
    with connection.client() as client:
        client.pause_learning(paused=paused)
    if json:
        print_json({"learning_paused": paused})
    else:
        messages.print(f"learning is {'paused' if paused else 'on'}")
