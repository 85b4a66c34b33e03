"""`agent health`: asks whether a server serves, as containers and load balancers do."""

from __future__ import annotations

from typing import Annotated

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.cli.connection import Connection
from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import console, print_json
from agent.client.channel import open_channel
from agent.client.connection import failure

ANSWER_SECONDS = 5.0
SERVING = "SERVING"


@grouped
def health(
    service: Annotated[
        str,
        typer.Argument(
            help="Full name of a service, such as continual.v1.ModelService.",
            show_default="the server as a whole",
        ),
    ] = "",
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Ask whether the server serves; no token is needed. Exit code 1 if it does not."""
    state = _state(connection, service)
    if json:
        print_json({"service": service, "state": state})
    else:
        console.print(state)
    if state != SERVING:
        raise typer.Exit(1)


def _state(connection: Connection, service: str) -> str:
    """Returns the state, as gRPC's health checking names it.

    Raises:
        AgentError: no server answers.
    """
    address = connection.address
    asked = health_pb2.HealthCheckRequest(service=service)
    channel, _ = open_channel(address, connection.access())
    with channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return "SERVICE_UNKNOWN"
            raise failure(error, address, is_connected=lambda: False) from error
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
