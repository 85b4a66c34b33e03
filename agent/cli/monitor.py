"""`agent monitor`: shows a server live in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.connection import Connection
from agent.cli.option_groups import grouped
from agent.cli.output import console
from agent.errors import ConfigError
from agent.monitor.feed import Feed, gather
from agent.monitor.keys import Keyboard
from agent.monitor.observations import Observation
from agent.monitor.panes import Look
from agent.monitor.recording import Recorder, read
from agent.monitor.run import Inbox, Monitor, Replay, Source, one_frame
from agent.monitor.screen import Screen, encodable, glyphs_of
from agent.monitor.state import standing_alarms

# The exit code of --once if something is wrong, as the frame shows.
ALARM = 1


@grouped
def monitor(
    address: Annotated[
        str | None,
        typer.Argument(metavar="[ADDRESS]", help="The server to watch.", show_default="--server"),
    ] = None,
    once: Annotated[
        bool,
        typer.Option("--once", help="Print one frame, with exit code 1 if something is wrong."),
    ] = False,
    record: Annotated[
        Path | None, typer.Option(help="Record the session in this new file, as JSON lines.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Replay a file of --record, without a server.")
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0.01, help="Replay this many times as fast as it happened.")
    ] = 1.0,
    *,
    connection: Connection,
) -> None:
    """Watch a server live: learning, retention, guards, events, alarms. Keys are listed below."""
    if record and replay:
        raise ConfigError("--record and --replay exclude each other: leave one out")
    if not once and not (
        sys.stdin.isatty() and console.is_terminal and not console.is_dumb_terminal
    ):
        raise ConfigError(
            "the monitor needs a terminal: run it in one, or ask for a frame by --once"
        )
    if address is not None:
        connection = replace(connection, server=address)
    with ExitStack() as stack:
        recorder = stack.enter_context(Recorder(record)) if record else None
        recorded = list(read(replay)) if replay else None
        if once:
            _print_frame(connection, recorded, recorder)
            return
        inbox = Inbox()
        stack.callback(inbox.close)
        source: Source
        clock: Callable[[], datetime] = partial(datetime.now, UTC)
        if recorded is None:
            source = Feed(connection.client, connection.server, inbox.put)
        else:
            source = shown = Replay(recorded, inbox.put, speed)
            clock = shown.now
        Monitor(
            source=source,
            inbox=inbox,
            screen=Screen(console),
            keyboard=Keyboard(sys.stdin.fileno()),
            glyphs=glyphs_of(console),
            clock=clock,
            zone=_local(),
            recorder=recorder,
        ).run()


def _print_frame(
    connection: Connection, recorded: list[Observation] | None, recorder: Recorder | None
) -> None:
    observed = recorded
    if observed is None:
        with connection.client() as client:
            observed = list(gather(client))
    if recorder is not None:
        for seen in observed:
            recorder.write(seen)
    width, height = console.size
    now = observed[-1].at if observed else datetime.now(UTC)
    look = Look(width=width, height=height, now=now, zone=_local(), glyphs=glyphs_of(console))
    state, frame = one_frame(observed, look)
    if console.is_terminal:
        console.print(frame)
    else:
        print(encodable(frame.plain(), console.encoding))
    if standing_alarms(state):
        raise typer.Exit(ALARM)


def _local() -> tzinfo:
    return datetime.now().astimezone().tzinfo or UTC
