"""`agent serve`."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import importlib.util
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.limits import LimitOptions
from agent.cli.model_fetch import prepare
from agent.cli.option_groups import grouped
from agent.cli.policies import chosen_samples
from agent.cli.security import SecurityOptions
from agent.cli.serve_options import (
    BackgroundOptions,
    FailureOptions,
    LearningOptions,
    ObservabilityOptions,
)
from agent.config import DEFAULT_ADDRESS, DEFAULT_MODEL, ServeSettings
from agent.errors import ConfigError

logger = logging.getLogger(__name__)


@grouped
def serve(
    ctx: typer.Context,
    data: Annotated[
        Path,
        typer.Option(
            envvar="AGENT_DATA", help="Keep the memory in this folder, which is made if missing."
        ),
    ] = Path("agent-data"),
    listen: Annotated[
        str,
        typer.Option(
            envvar="AGENT_LISTEN", help="Listen on this HOST:PORT; port 0 takes any free one."
        ),
    ] = DEFAULT_ADDRESS,
    model: Annotated[
        str,
        typer.Option(
            envvar="AGENT_MODEL",
            help="Serve this model: a name of 'agent models list', a Hugging Face id, or a folder.",
        ),
    ] = DEFAULT_MODEL,
    device: Annotated[
        str, typer.Option(envvar="AGENT_DEVICE", help="Run the model on auto, cpu or cuda.")
    ] = "auto",
    threads: Annotated[
        int,
        typer.Option(
            envvar="AGENT_THREADS",
            min=0,
            help="Use this many CPU threads in the learner; 0 leaves it to torch. A ledger replays"
            " to the same bits only with the same number.",
        ),
    ] = 0,
    allow_network_filesystem: Annotated[
        bool,
        typer.Option(
            "--allow-network-filesystem",
            envvar="AGENT_ALLOW_NETWORK_FILESYSTEM",
            help="Serve a data folder on a network file system, where accepted facts can be lost.",
        ),
    ] = False,
    accept_drift: Annotated[
        bool,
        typer.Option(
            "--accept-drift",
            help="Serve the weights although they replay differently here, after probing every"
            " fact.",
        ),
    ] = False,
    *,
    learning: LearningOptions,
    background: BackgroundOptions,
    failures: FailureOptions,
    observability: ObservabilityOptions,
    limits: LimitOptions,
    security: SecurityOptions,
) -> None:
    """Serve a model and its memory until SIGTERM or Ctrl-C."""
    from agent.server.app import serve as run  # imports gRPC: not needed for --help
    from agent.server.telemetry.logs import configure

    configure(observability.log_format)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    for name in ctx.obj or ():
        logger.warning("the variable %s is not a setting of this release: it is ignored", name)
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device}: choose auto, cpu or cuda")
    policy = learning.chosen()
    settings = ServeSettings(
        listen=listen,
        data=data,
        model=model,
        device=device,
        threads=threads or None,
        policy=policy,
        limits=limits.chosen(policy),
        samples=chosen_samples(learning.probes),
        allow_network_filesystem=allow_network_filesystem,
        accept_drift=accept_drift,
        security=security.chosen(),
        observability=observability.chosen(),
        **dataclasses.asdict(background),
        **dataclasses.asdict(failures),
    )

    def on_start(address: str) -> None:
        # One line that scripts wait for.
        print(f"listening on {address}", flush=True)
        logger.info("data in %s, loading %s", data, model)

    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        runner.run(run(settings, on_start, partial(prepare, model, device)))
    logger.info("stopped")


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is (`pip install continual-agent[fast]`); None: asyncio's own."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
        "uvloop"
    ).new_event_loop
    return factory
