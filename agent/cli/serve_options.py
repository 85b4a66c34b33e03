"""The options of `agent serve` by subject, except security and limits.

Fields of `ServeSettings` have the same names.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from agent.cli.policies import EXACT_PROBES, PAPER_PROBES, PAPER_SAMPLES, PolicyOptions
from agent.config import (
    DEFAULT_ADDRESS,
    DEFAULT_AUDIT_MINUTES,
    DEFAULT_DRAIN_SECONDS,
    DEFAULT_KEEP_EVENTS,
    DEFAULT_KEEP_SNAPSHOT_DAYS,
    DEFAULT_KEEP_SNAPSHOTS,
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_MAX_QUESTIONS,
    DEFAULT_MAX_QUEUED,
    DEFAULT_METRICS_HOST,
    DEFAULT_MODEL,
    DEFAULT_PREDICT_MINUTES,
    DEFAULT_REVIEW_SECONDS,
    DEFAULT_SILENT_SECONDS,
    DEFAULT_SNAPSHOT_SECONDS,
    DEFAULT_STALLED_SECONDS,
    DEFAULT_THIN_MINUTES,
    LogFormat,
    Observability,
)


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
    ] = DEFAULT_AUDIT_MINUTES
    predict_minutes: Annotated[
        float,
        typer.Option(
            min=0,
            help="Fit the rates that policy predicted expects this often, in minutes; with 0 the"
            " policy searches.",
        ),
    ] = DEFAULT_PREDICT_MINUTES
    review_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            help="Look for facts that are due for review this often, in seconds, and teach again"
            " those that were lost; 0 switches reviews off.",
        ),
    ] = DEFAULT_REVIEW_SECONDS
    snapshot_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            help="Write a snapshot of the weights after this many seconds of learning, which limits"
            " how long a restart takes; 0 writes snapshots only at a clean stop or on request.",
        ),
    ] = DEFAULT_SNAPSHOT_SECONDS
    keep_snapshots: Annotated[
        int, typer.Option(min=1, help="Keep this many of the newest snapshots.")
    ] = DEFAULT_KEEP_SNAPSHOTS
    keep_snapshot_days: Annotated[
        int,
        typer.Option(min=0, help="Keep also the newest snapshot of each day, for this many days."),
    ] = DEFAULT_KEEP_SNAPSHOT_DAYS
    thin_minutes: Annotated[
        float,
        typer.Option(
            min=0, help="Remove old probes and events this often, in minutes; 0 keeps all of them."
        ),
    ] = DEFAULT_THIN_MINUTES
    keep_events: Annotated[
        int,
        typer.Option(
            min=1000,
            help="Keep this many of the newest events in full, and of older ones only the results"
            " of learning.",
        ),
    ] = DEFAULT_KEEP_EVENTS


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
    ] = DEFAULT_MAX_QUEUED
    max_questions: Annotated[
        int,
        typer.Option(
            min=1,
            help="Refuse questions, to be asked again later, while this many wait for an answer.",
        ),
    ] = DEFAULT_MAX_QUESTIONS
    max_attempts: Annotated[
        int,
        typer.Option(
            min=1, help="Quarantine a fact that fails this often, and go on with the next one."
        ),
    ] = DEFAULT_MAX_ATTEMPTS
    silent_seconds: Annotated[
        float,
        typer.Option(
            min=0, help="Restart a learner that does not answer for this many seconds; 0: never."
        ),
    ] = DEFAULT_SILENT_SECONDS
    stalled_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            help="Restart a learner whose device makes no progress for this many seconds; 0:"
            " never. Compiling a kernel counts as no progress.",
        ),
    ] = DEFAULT_STALLED_SECONDS
    drain_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            help="Wait at most this many seconds, after SIGTERM, for the update in progress. The"
            " server stops 15 seconds later at most.",
        ),
    ] = DEFAULT_DRAIN_SECONDS


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
    ] = DEFAULT_METRICS_HOST


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
