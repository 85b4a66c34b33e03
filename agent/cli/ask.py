"""`agent ask`, `agent score`, `agent status`: asks the model, and shows the state of the server."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Annotated

import typer
from rich.table import Table

from agent.cli.connection import Connection, StartTimeout, wait_ready
from agent.cli.operations import operation_json, operation_text
from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import console, messages, print_json, shown, state_text
from agent.client.server_start import START_SECONDS
from agent.teaching.limits import TeachingLimits
from agent.teaching.rates import POLICIES


@grouped
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    max_new_tokens: Annotated[
        int, typer.Option(min=1, max=512, help="Stop the answer after this many tokens.")
    ] = 32,
    start_timeout: StartTimeout = START_SECONDS,
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Ask the model, and print its answer as it is generated."""
    with connection.client() as client:
        wait_ready(client, start_timeout)
        if json:
            with messages.status("asking"):
                reply = client.ask(question, max_new_tokens)
            print_json(reply)
            return
        pieces = client.ask_stream(question, max_new_tokens)
        with messages.status("asking"):  # the first token may wait for a step of an update
            first = next(pieces)
        for piece in itertools.chain([first], pieces):
            if isinstance(piece, str):
                console.print(shown(piece), end="", soft_wrap=True)
    console.print()


@grouped
def score(
    question: Annotated[str, typer.Argument(help="The question.")],
    answer: Annotated[str, typer.Argument(help="The answer to rate.")],
    start_timeout: StartTimeout = START_SECONDS,
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Print the probability that the model gives exactly this answer."""
    with connection.client() as client:
        wait_ready(client, start_timeout)
        with messages.status("asking"):
            result = client.score(question, answer)
    if json:
        print_json(result)
        return
    console.print(
        f"probability {math.exp(result.log_probability):.4g}"
        f" (log {result.log_probability:.4f}, {result.tokens} tokens)"
        f" at model version {result.model_version}"
    )


@grouped
def status(
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the server is ready to learn and answer.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Wait at most this many seconds.")] = 600.0,
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Show what the server serves, and its progress."""
    with connection.client() as client:
        result = wait_ready(client, timeout) if wait else client.status()
    if json:
        operation = operation_json(result.operation) if result.operation else None
        print_json({**dataclasses.asdict(result), "operation": operation})
        return
    table = Table(show_header=False, box=None)
    table.add_row("model", shown(result.model))
    table.add_row("model version", str(result.model_version))
    learner = result.learner.value
    if result.updates_to_replay:
        learner += f", {result.updates_to_replay} updates to replay"
    if result.learning_paused:
        learner += ", learning is paused ('agent resume' goes on)"
    table.add_row("learner", learner)
    if result.learner_message:
        table.add_row("", shown(result.learner_message))
    if result.device:
        device = f"{result.device}, {result.parameters / 1e6:.1f} M parameters"
        table.add_row("device", shown(device))
    table.add_row("queue", str(result.queue_depth))
    if result.teaching_limits is not None:
        table.add_row("facts may ask for", shown(_limits_text(result.teaching_limits)))
    if result.operation is not None:
        table.add_row("operation", shown(operation_text(result.operation)))
    if result.clean_up_problem:
        table.add_row("clean-up", shown(result.clean_up_problem))
    if result.snapshot_overdue:
        table.add_row("snapshot overdue", shown(result.snapshot_overdue))
    for state, count in result.facts.items():
        if count:
            table.add_row(state_text(state), str(count))
    console.print(table)


def _limits_text(limits: TeachingLimits) -> str:
    ungated = "" if limits.gated else "; updates of fixed and paper pass no gate"
    policies = ", ".join(limits.policies)
    if set(limits.policies) == set(POLICIES):
        policies = "any policy"
    return (
        f"{policies}, a rate up to {limits.largest_learning_rate:g},"
        f" {limits.most_steps} steps{ungated}"
    )
