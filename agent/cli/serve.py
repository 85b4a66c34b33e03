"""`agent serve`."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.output import messages
from agent.cli.policies import chosen_policy
from agent.config import DEFAULT_ADDRESS, DEFAULT_AUDIT_MINUTES, DEFAULT_MODEL, ServeSettings
from agent.errors import ConfigError
from agent.learning import catalog, rates

logger = logging.getLogger(__name__)


def serve(
    data: Annotated[
        Path, typer.Option(envvar="AGENT_DATA", help="Folder of the memory; made if missing.")
    ] = Path("agent-data"),
    listen: Annotated[
        str, typer.Option(envvar="AGENT_LISTEN", help="HOST:PORT; port 0 takes any free one.")
    ] = DEFAULT_ADDRESS,
    model: Annotated[
        str,
        typer.Option(
            envvar="AGENT_MODEL", help="A name of 'agent models list', a Hub id, or a folder."
        ),
    ] = DEFAULT_MODEL,
    device: Annotated[str, typer.Option(envvar="AGENT_DEVICE", help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[
        int,
        typer.Option(
            envvar="AGENT_THREADS",
            min=0,
            help="CPU threads of the learner; 0: torch decides. A ledger replays to the same bits"
            " only with the same number.",
        ),
    ] = 0,
    policy: Annotated[
        str,
        typer.Option(
            envvar="AGENT_POLICY",
            help=f"Policy for facts that bring none: {' or '.join(rates.POLICIES)}.",
        ),
    ] = rates.DEFAULT_POLICY.name,
    learning_rate: Annotated[
        float, typer.Option(envvar="AGENT_LEARNING_RATE", help="Its rate, 1e-8 to 1e-1.")
    ] = rates.DEFAULT_POLICY.learning_rate,
    max_steps: Annotated[
        int, typer.Option(envvar="AGENT_MAX_STEPS", help="Its limit of steps, 1 to 1000.")
    ] = rates.DEFAULT_POLICY.max_steps,
    audit_minutes: Annotated[
        float,
        typer.Option(
            envvar="AGENT_AUDIT_MINUTES",
            min=0,
            help="Time between two audits, each probing some learned facts; 0: none.",
        ),
    ] = DEFAULT_AUDIT_MINUTES,
) -> None:
    """Serve a model and its memory until SIGTERM or Ctrl-C."""
    from agent.app import serve as run  # imports gRPC: not needed for --help

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device}: choose auto, cpu or cuda")
    settings = ServeSettings(
        listen=listen,
        data=data,
        model=model,
        device=device,
        threads=threads or None,
        policy=chosen_policy(policy, learning_rate, max_steps),
        audit_minutes=audit_minutes,
    )
    _fetch_if_missing(model)

    def on_start(address: str) -> None:
        # One line that scripts wait for.
        print(f"listening on {address}", flush=True)
        logger.info("data in %s, loading %s", data, model)

    asyncio.run(run(settings, on_start))
    logger.info("stopped")


def _fetch_if_missing(model: str) -> None:
    """Fetches the model with a progress bar before anything is served.

    In a process of its own: torch stays out of the server.
    """
    if catalog.is_cached(catalog.resolve(model)):
        return
    messages.print(f"Fetching {model}, which is not on this machine yet")
    pull = subprocess.run([sys.executable, "-m", "agent", "models", "pull", model], check=False)
    if pull.returncode:
        raise typer.Exit(pull.returncode)
