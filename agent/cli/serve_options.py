"""The options of `agent serve` by subject, except security and limits.

Fields of `ServeSettings` have the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from agent.cli.policies import EXACT_PROBES, PAPER_PROBES, PAPER_SAMPLES, PolicyOptions
from agent.config import (
    DEFAULT_ADDRESS,
    DEFAULT_MODEL,
    LogFormat,
    Observability,
    ServeSettings,
)

DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in fields(ServeSettings)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where a server runs and what it serves."""

    PANEL: ClassVar = None

    data: Annotated[
        Path, typer.Option(help="Keep the memory in this folder, which is made if missing.")
    ] = Path("agent-data")
    listen: Annotated[
        str, typer.Option(help="Listen on this HOST:PORT; port 0 takes any free one.")
    ] = DEFAULT_ADDRESS
    model: Annotated[
        str,
        typer.Option(
            help="Serve this model: a name of 'agent models list', a Hugging Face id, or a folder."
        ),
    ] = DEFAULT_MODEL
    device: Annotated[str, typer.Option(help="Run the model on auto, cpu or cuda.")] = "auto"
    allow_network_filesystem: Annotated[
        bool,
        typer.Option(
            "--allow-network-filesystem",
            help="Serve a data folder on a network file system, where accepted facts can be lost.",
        ),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningOptions(PolicyOptions):
    """How facts are learned, and measured afterwards."""

    probes: Annotated[
        str,
        typer.Option(
            help=f"Measure a fact after its update. {EXACT_PROBES}: compute probabilities."
            f" {PAPER_PROBES}[:SAMPLES]: also sample answers, {PAPER_SAMPLES} for each question,"
            " which takes seconds to minutes."
        ),
    ] = EXACT_PROBES


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundOptions:
    """What the server does by itself, and how often."""

    PANEL: ClassVar = "Background work"

    audit_minutes: Annotated[
        float,
        typer.Option(
            min=0, help="Probe some learned facts this often, in minutes; 0 switches audits off."
        ),
    ] = DEFAULTS["audit_minutes"]
    predict_minutes: Annotated[
        float,
        typer.Option(
            min=0,
            help="Fit the rates that policy predicted expects this often, in minutes; with 0 the"
            " policy searches.",
        ),
    ] = DEFAULTS["predict_minutes"]
    review_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            help="Look for facts that are due for review this often, in seconds, and teach again"
            " those that were lost; 0 switches reviews off.",
        ),
    ] = DEFAULTS["review_seconds"]
    snapshot_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            help="Write a snapshot of the weights after this many seconds of learning, which limits"
            " how long a restart takes; 0 writes snapshots only at a clean stop or on request.",
        ),
    ] = DEFAULTS["snapshot_seconds"]
    keep_snapshots: Annotated[
        int, typer.Option(min=1, help="Keep this many of the newest snapshots.")
    ] = DEFAULTS["keep_snapshots"]
    keep_snapshot_days: Annotated[
        int,
        typer.Option(min=0, help="Keep also the newest snapshot of each day, for this many days."),
    ] = DEFAULTS["keep_snapshot_days"]
    thin_minutes: Annotated[
        float,
        typer.Option(
            min=0, help="Remove old probes and events this often, in minutes; 0 keeps all of them."
        ),
    ] = DEFAULTS["thin_minutes"]
    keep_events: Annotated[
        int,
        typer.Option(
            min=1000,
            help="Keep this many of the newest events in full, and of older ones only the results"
            " of learning.",
        ),
    ] = DEFAULTS["keep_events"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureOptions:
    """What is done about too much load, and about failures."""

    PANEL: ClassVar = "Load and failures"

    max_queued: Annotated[
        int,
        typer.Option(
            min=1,
            help="Refuse new facts, to be sent again later, while this many wait to be learned.",
        ),
    ] = DEFAULTS["max_queued"]
    max_questions: Annotated[
        int,
        typer.Option(
            min=1,
            help="Refuse questions, to be asked again later, while this many wait for an answer.",
        ),
    ] = DEFAULTS["max_questions"]
    max_attempts: Annotated[
        int,
        typer.Option(
            min=1, help="Quarantine a fact that fails this often, and go on with the next one."
        ),
    ] = DEFAULTS["max_attempts"]
    silent_seconds: Annotated[
        float,
        typer.Option(
            min=0, help="Restart a learner that does not answer for this many seconds; 0: never."
        ),
    ] = DEFAULTS["silent_seconds"]
    stalled_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            help="Restart a learner whose device makes no progress for this many seconds; 0:"
            " never. Compiling a kernel counts as no progress.",
        ),
    ] = DEFAULTS["stalled_seconds"]
    drain_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            help="Wait at most this many seconds, after SIGTERM, for the update in progress. The"
            " server stops 15 seconds later at most.",
        ),
    ] = DEFAULTS["drain_seconds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsOptions:
    """Metrics. See docs/operations."""

    PANEL: ClassVar = "Observability"

    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Serve Prometheus metrics over HTTP on this port; 0 takes any free one.",
            show_default="none are served",
        ),
    ] = None
    metrics_host: Annotated[
        str,
        typer.Option(help="Serve metrics on this address. Anybody who reaches it can read them."),
    ] = Observability().metrics_host


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservabilityOptions(MetricsOptions):
    """Metrics, traces and the log."""

    trace_to: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Send traces to this OTLP collector, for example http://127.0.0.1:4318/v1/traces."
            " This needs the extra 'tracing' of continual-agent.",
        ),
    ] = ""
    log_format: Annotated[
        LogFormat,
        typer.Option(help="Write the log as text for people, or as one JSON object a line."),
    ] = LogFormat.TEXT

    def chosen(self) -> Observability:
        """Returns the settings."""
        return Observability(**asdict(self))
