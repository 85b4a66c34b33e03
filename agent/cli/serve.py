"""`agent serve`."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterable
from functools import partial
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
    ServerOptions,
)
from agent.config import ServeSettings
from agent.errors import ConfigError

logger = logging.getLogger(__name__)


@grouped
def serve(
    ctx: typer.Context,
    *,
    server: ServerOptions,
    threads: Annotated[
        int,
        typer.Option(
            envvar="AGENT_THREADS",
            min=0,
            help="Use this many CPU threads in the learner; 0 leaves it to torch. A ledger replays"
            " to the same bits only with the same number.",
        ),
    ] = 0,
    accept_drift: Annotated[
        bool,
        typer.Option(
            "--accept-drift",
            help="Serve the weights although they replay differently here, after probing every"
            " fact.",
        ),
    ] = False,
    learning: LearningOptions,
    background: BackgroundOptions,
    failures: FailureOptions,
    observability: ObservabilityOptions,
    limits: LimitOptions,
    security: SecurityOptions,
) -> None:
    """Serve a model and its memory until SIGTERM or Ctrl-C."""
    from agent.server.app import serve as run  # imports gRPC: not needed for --help

    _begin_log(observability, ctx.obj or ())
    if server.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {server.device}: choose auto, cpu or cuda")
    policy = learning.chosen()
    settings = ServeSettings(
        **dataclasses.asdict(server),
        **dataclasses.asdict(background),
        **dataclasses.asdict(failures),
        threads=threads or None,
        policy=policy,
        limits=limits.chosen(policy),
        samples=chosen_samples(learning.probes),
        accept_drift=accept_drift,
        security=security.chosen(),
        observability=observability.chosen(),
    )

    def on_start(address: str) -> None:
        # Scripts wait for this line.
        print(f"listening on {address}", flush=True)
        logger.info("data in %s, loading %s", server.data, server.model)

    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        runner.run(run(settings, on_start, partial(prepare, server.model, server.device)))
    logger.info("stopped")


def _begin_log(observability: ObservabilityOptions, unknown_variables: Iterable[str]) -> None:
    """Sets up the log, and warns of variables that no option is set by."""
    from agent.server.telemetry.logs import configure

    configure(observability.log_format)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    for name in unknown_variables:
        logger.warning("the variable %s is not a setting of this release: it is ignored", name)


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Returns uvloop's factory, if installed (`pip install continual-agent[fast]`), else None."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
        "uvloop"
    ).new_event_loop
    return factory
