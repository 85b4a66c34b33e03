"""`agent serve`."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.limits import LimitOptions
from agent.cli.option_groups import grouped
from agent.cli.output import messages, shown
from agent.cli.policies import (
    AUTO_GUARDS,
    EXACT_PROBES,
    POLICY_HELP,
    chosen_policy,
    chosen_samples,
    complete_guards,
    complete_policy,
)
from agent.cli.security import SecurityOptions
from agent.config import (
    DEFAULT_ADDRESS,
    DEFAULT_AUDIT_MINUTES,
    DEFAULT_DRAIN_SECONDS,
    DEFAULT_KEEP_EVENTS,
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_MAX_QUESTIONS,
    DEFAULT_MAX_QUEUED,
    DEFAULT_METRICS_HOST,
    DEFAULT_MODEL,
    DEFAULT_PREDICT_MINUTES,
    DEFAULT_REVIEW_SECONDS,
    DEFAULT_SILENT_SECONDS,
    DEFAULT_STALLED_SECONDS,
    DEFAULT_THIN_MINUTES,
    LogFormat,
    Observability,
    ServeSettings,
)
from agent.errors import ConfigError, MissingDeviceError
from agent.learning import catalog, rates
from agent.learning.presets import PRESETS
from agent.python_command import python_command

logger = logging.getLogger(__name__)


@grouped
def serve(
    ctx: typer.Context,
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
            autocompletion=complete_policy,
            help=f"Policy for facts that bring none. {POLICY_HELP}.",
        ),
    ] = rates.DEFAULT_POLICY.name,
    learning_rate: Annotated[
        float,
        typer.Option(
            envvar="AGENT_LEARNING_RATE",
            help="Its rate (search, predicted: the largest), 1e-8 to 1e-1.",
        ),
    ] = rates.DEFAULT_POLICY.learning_rate,
    max_steps: Annotated[
        int, typer.Option(envvar="AGENT_MAX_STEPS", help="Its limit of steps, 1 to 1000.")
    ] = rates.DEFAULT_POLICY.max_steps,
    guards: Annotated[
        str,
        typer.Option(
            envvar="AGENT_GUARDS",
            autocompletion=complete_guards,
            help=f"What updates are held to: {', '.join(PRESETS)};"
            f" {AUTO_GUARDS}: full on a GPU, else light.",
        ),
    ] = AUTO_GUARDS,
    without: Annotated[
        str,
        typer.Option(
            envvar="AGENT_WITHOUT",
            help="Guards to switch off: rehearsed, neighbours, controls, texts; joined by commas.",
        ),
    ] = "",
    probes: Annotated[
        str,
        typer.Option(
            envvar="AGENT_PROBES",
            help="After an update: exact, probabilities only; or paper[:SAMPLES], texts are sampled"
            " too, 80 for each question, which takes seconds to minutes.",
        ),
    ] = EXACT_PROBES,
    audit_minutes: Annotated[
        float,
        typer.Option(
            envvar="AGENT_AUDIT_MINUTES",
            min=0,
            help="Time between two audits, each probing some learned facts; 0: none.",
        ),
    ] = DEFAULT_AUDIT_MINUTES,
    predict_minutes: Annotated[
        float,
        typer.Option(
            envvar="AGENT_PREDICT_MINUTES",
            min=0,
            help="Time between two fits of which rates policy predicted expects; 0: it searches.",
        ),
    ] = DEFAULT_PREDICT_MINUTES,
    review_seconds: Annotated[
        float,
        typer.Option(
            envvar="AGENT_REVIEW_SECONDS",
            min=0,
            help="Time between two looks for facts to review; fallen ones are taught again. 0: no.",
        ),
    ] = DEFAULT_REVIEW_SECONDS,
    snapshot_updates: Annotated[
        int,
        typer.Option(
            envvar="AGENT_SNAPSHOT_UPDATES",
            min=0,
            help="A snapshot after so many updates; 0: no.",
        ),
    ] = 100,
    snapshot_seconds: Annotated[
        float,
        typer.Option(
            envvar="AGENT_SNAPSHOT_SECONDS",
            min=0,
            help="And after so many seconds of learning, which bounds a restart; 0: none.",
        ),
    ] = 20.0,
    snapshot_minutes: Annotated[
        float,
        typer.Option(
            envvar="AGENT_SNAPSHOT_MINUTES",
            min=0,
            help="And after so many minutes in which something was learned; 0: none.",
        ),
    ] = 10.0,
    keep_snapshots: Annotated[
        int, typer.Option(envvar="AGENT_KEEP_SNAPSHOTS", min=1, help="The newest so many are kept,")
    ] = 3,
    keep_snapshot_days: Annotated[
        int,
        typer.Option(
            envvar="AGENT_KEEP_SNAPSHOT_DAYS", min=0, help="and the newest of each of so many days."
        ),
    ] = 7,
    max_queued: Annotated[
        int,
        typer.Option(
            envvar="AGENT_MAX_QUEUED",
            min=1,
            help="New facts are refused, to be sent later, while so many wait to be learned.",
        ),
    ] = DEFAULT_MAX_QUEUED,
    silent_seconds: Annotated[
        float,
        typer.Option(
            envvar="AGENT_SILENT_SECONDS",
            min=0,
            help="A learner that gives no sign of life for this long is killed and started again;"
            " 0: never.",
        ),
    ] = DEFAULT_SILENT_SECONDS,
    stalled_seconds: Annotated[
        float,
        typer.Option(
            envvar="AGENT_STALLED_SECONDS",
            min=0,
            help="A learner whose device makes no progress for this long is killed and started"
            " again; compiling a kernel shows none. 0: never.",
        ),
    ] = DEFAULT_STALLED_SECONDS,
    max_questions: Annotated[
        int,
        typer.Option(
            envvar="AGENT_MAX_QUESTIONS",
            min=1,
            help="Questions are refused, to be asked later, while this many wait for an answer.",
        ),
    ] = DEFAULT_MAX_QUESTIONS,
    max_attempts: Annotated[
        int,
        typer.Option(
            envvar="AGENT_MAX_ATTEMPTS",
            min=1,
            help="A fact that fails this often is quarantined, and the next one is learned.",
        ),
    ] = DEFAULT_MAX_ATTEMPTS,
    thin_minutes: Annotated[
        float,
        typer.Option(
            envvar="AGENT_THIN_MINUTES",
            min=0,
            help="Old probes and events are thinned out this often, in minutes; 0 keeps all.",
        ),
    ] = DEFAULT_THIN_MINUTES,
    keep_events: Annotated[
        int,
        typer.Option(
            envvar="AGENT_KEEP_EVENTS",
            min=1000,
            help="The newest events stay as they are; of older ones only the results.",
        ),
    ] = DEFAULT_KEEP_EVENTS,
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
            help="Serve weights that replay differently here; probes all facts, keeps the result.",
        ),
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            envvar="AGENT_METRICS_PORT",
            min=0,
            max=65535,
            help="Serve Prometheus metrics over HTTP here; 0 takes any free port.",
            show_default="none are served",
        ),
    ] = None,
    metrics_host: Annotated[
        str,
        typer.Option(
            envvar="AGENT_METRICS_HOST",
            help="Their address. Anybody who reaches it can read them.",
        ),
    ] = DEFAULT_METRICS_HOST,
    trace_to: Annotated[
        str,
        typer.Option(
            envvar="AGENT_TRACE_TO",
            metavar="URL",
            help="Send traces to this OTLP collector, as http://127.0.0.1:4318/v1/traces; needs"
            " continual-agent[tracing].",
        ),
    ] = "",
    log_format: Annotated[
        LogFormat, typer.Option(envvar="AGENT_LOG_FORMAT", help="How the log is written.")
    ] = LogFormat.TEXT,
    drain_seconds: Annotated[
        float,
        typer.Option(
            envvar="AGENT_DRAIN_SECONDS",
            min=0,
            help="On SIGTERM: longest wait for the update in hand. All ends 15 s later at most.",
        ),
    ] = DEFAULT_DRAIN_SECONDS,
    *,
    limits: LimitOptions,
    security: SecurityOptions,
) -> None:
    """Serve a model and its memory until SIGTERM or Ctrl-C."""
    from agent.app import serve as run  # imports gRPC: not needed for --help
    from agent.telemetry.logs import configure

    configure(log_format)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    for name in ctx.obj or ():
        logger.warning("the variable %s is not a setting of this release: it is ignored", name)
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device}: choose auto, cpu or cuda")
    own = chosen_policy(policy, learning_rate, max_steps, guards, without)
    settings = ServeSettings(
        listen=listen,
        data=data,
        model=model,
        device=device,
        threads=threads or None,
        policy=own,
        limits=limits.chosen(own),
        audit_minutes=audit_minutes,
        predict_minutes=predict_minutes,
        review_seconds=review_seconds,
        snapshot_updates=snapshot_updates,
        snapshot_seconds=snapshot_seconds,
        snapshot_minutes=snapshot_minutes,
        keep_snapshots=keep_snapshots,
        keep_snapshot_days=keep_snapshot_days,
        max_queued=max_queued,
        silent_seconds=silent_seconds,
        stalled_seconds=stalled_seconds,
        max_questions=max_questions,
        max_attempts=max_attempts,
        thin_minutes=thin_minutes,
        keep_events=keep_events,
        allow_network_filesystem=allow_network_filesystem,
        accept_drift=accept_drift,
        samples=chosen_samples(probes),
        drain_seconds=drain_seconds,
        security=security.chosen(),
        observability=Observability(
            metrics_port=metrics_port,
            metrics_host=metrics_host,
            trace_to=trace_to,
            log_format=log_format,
        ),
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


async def prepare(model: str, device: str) -> None:
    """What comes before a learner can start, while facts are accepted already.

    Raises:
        MissingDeviceError: there is no such device; the model is not fetched for nothing.
        typer.Exit: the model cannot be fetched; why is on standard error.
    """
    if device == "cuda":
        await _require_cuda()
    await fetch(model)


async def _require_cuda() -> None:
    """Asks in a process of its own: torch is large.

    Raises:
        MissingDeviceError: this machine has no CUDA device that torch can use.
    """
    asked = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    if await _ended(python_command("-c", asked), stderr=subprocess.DEVNULL):
        raise MissingDeviceError(
            "--device cuda: torch finds no CUDA device here: choose --device cpu, or see what"
            " 'agent doctor --device cuda' says"
        )


def fetch_if_missing(model: str) -> None:
    """Fetches the model with a progress bar before anything else is done; see `fetch`."""
    asyncio.run(fetch(model))


async def fetch(model: str) -> None:
    """Fetches the model with a progress bar, unless it is on this machine.

    In a process of its own: torch stays out of the server.

    Raises:
        typer.Exit: it cannot be fetched; why is on standard error.
    """
    if await asyncio.to_thread(catalog.is_cached, catalog.resolve(model)):
        return
    messages.print(shown(f"Fetching {model}, which is not on this machine yet"))
    if code := await _ended(python_command("-m", "agent", "models", "pull", model)):
        raise typer.Exit(code)


async def _ended(command: Sequence[str], stderr: int | None = None) -> int:
    """The exit code of a program, which ends with the task that waits for it."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stderr=stderr
    )
    try:
        return await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
