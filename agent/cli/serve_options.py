"""The options of `agent serve` by subject; those on security and limits are in their own modules.

A field that `ServeSettings` has too has the same name there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from agent.cli.policies import (
    AUTO_GUARDS,
    EXACT_PROBES,
    PAPER_PROBES,
    PAPER_SAMPLES,
    POLICY_HELP,
    chosen_policy,
    complete_guards,
    complete_policy,
)
from agent.config import (
    DEFAULT_AUDIT_MINUTES,
    DEFAULT_DRAIN_SECONDS,
    DEFAULT_KEEP_EVENTS,
    DEFAULT_KEEP_SNAPSHOT_DAYS,
    DEFAULT_KEEP_SNAPSHOTS,
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_MAX_QUESTIONS,
    DEFAULT_MAX_QUEUED,
    DEFAULT_METRICS_HOST,
    DEFAULT_PREDICT_MINUTES,
    DEFAULT_REVIEW_SECONDS,
    DEFAULT_SILENT_SECONDS,
    DEFAULT_SNAPSHOT_SECONDS,
    DEFAULT_STALLED_SECONDS,
    DEFAULT_THIN_MINUTES,
    LogFormat,
    Observability,
)
from agent.teaching import rates
from agent.teaching.guard_presets import PRESETS
from memory_store.vocabulary import Policy

LEARNING, BACKGROUND, FAILURES, OBSERVABILITY = (
    "Learning",
    "Background work",
    "Load and failures",
    "Observability",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningOptions:
    """How facts are learned. See docs/how-to/choose-a-policy.md."""

    policy: Annotated[
        str,
        typer.Option(
            envvar="AGENT_POLICY",
            autocompletion=complete_policy,
            help=f"Learn facts that name no policy by this one. {POLICY_HELP}.",
            rich_help_panel=LEARNING,
        ),
    ] = rates.DEFAULT_POLICY.name
    learning_rate: Annotated[
        float,
        typer.Option(
            envvar="AGENT_LEARNING_RATE",
            help="Learn at this rate, 1e-8 to 1e-1. For search and predicted it is the largest"
            " rate that is tried.",
            rich_help_panel=LEARNING,
        ),
    ] = rates.DEFAULT_POLICY.learning_rate
    max_steps: Annotated[
        int,
        typer.Option(
            envvar="AGENT_MAX_STEPS",
            help="Take at most this many steps for one fact, 1 to 1000.",
            rich_help_panel=LEARNING,
        ),
    ] = rates.DEFAULT_POLICY.max_steps
    guards: Annotated[
        str,
        typer.Option(
            envvar="AGENT_GUARDS",
            autocompletion=complete_guards,
            help="Guard the rest of the model against harm from an update with one of the sets"
            f" {', '.join(PRESETS)}. With {AUTO_GUARDS} it is full on a GPU and light on a CPU.",
            rich_help_panel=LEARNING,
        ),
    ] = AUTO_GUARDS
    without: Annotated[
        str,
        typer.Option(
            envvar="AGENT_WITHOUT",
            help="Switch off some guards of the set: rehearsed, neighbours, controls or texts,"
            " separated by commas.",
            rich_help_panel=LEARNING,
        ),
    ] = ""
    probes: Annotated[
        str,
        typer.Option(
            envvar="AGENT_PROBES",
            help=f"Measure a fact after its update. {EXACT_PROBES}: compute probabilities."
            f" {PAPER_PROBES}[:SAMPLES]: also sample answers, {PAPER_SAMPLES} for each question,"
            " which takes seconds to minutes.",
            rich_help_panel=LEARNING,
        ),
    ] = EXACT_PROBES

    def chosen(self) -> Policy:
        """The policy for facts that name none.

        Raises:
            ConfigError: a name is unknown.
            InvalidFactError: rate or steps are out of range.
        """
        return chosen_policy(
            self.policy, self.learning_rate, self.max_steps, self.guards, self.without
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundOptions:
    """What the server does by itself, and how often."""

    audit_minutes: Annotated[
        float,
        typer.Option(
            envvar="AGENT_AUDIT_MINUTES",
            min=0,
            help="Probe some learned facts this often, in minutes; 0 switches audits off.",
            rich_help_panel=BACKGROUND,
        ),
    ] = DEFAULT_AUDIT_MINUTES
    predict_minutes: Annotated[
        float,
        typer.Option(
            envvar="AGENT_PREDICT_MINUTES",
            min=0,
            help="Fit the rates that policy predicted expects this often, in minutes; with 0 the"
            " policy searches.",
            rich_help_panel=BACKGROUND,
        ),
    ] = DEFAULT_PREDICT_MINUTES
    review_seconds: Annotated[
        float,
        typer.Option(
            envvar="AGENT_REVIEW_SECONDS",
            min=0,
            help="Look for facts that are due for review this often, in seconds, and teach again"
            " those that were lost; 0 switches reviews off.",
            rich_help_panel=BACKGROUND,
        ),
    ] = DEFAULT_REVIEW_SECONDS
    snapshot_seconds: Annotated[
        float,
        typer.Option(
            envvar="AGENT_SNAPSHOT_SECONDS",
            min=0,
            help="Write a snapshot of the weights after this many seconds of learning, which limits"
            " how long a restart takes; 0 writes snapshots only at a clean stop or on request.",
            rich_help_panel=BACKGROUND,
        ),
    ] = DEFAULT_SNAPSHOT_SECONDS
    keep_snapshots: Annotated[
        int,
        typer.Option(
            envvar="AGENT_KEEP_SNAPSHOTS",
            min=1,
            help="Keep this many of the newest snapshots.",
            rich_help_panel=BACKGROUND,
        ),
    ] = DEFAULT_KEEP_SNAPSHOTS
    keep_snapshot_days: Annotated[
        int,
        typer.Option(
            envvar="AGENT_KEEP_SNAPSHOT_DAYS",
            min=0,
            help="Keep also the newest snapshot of each day, for this many days.",
            rich_help_panel=BACKGROUND,
        ),
    ] = DEFAULT_KEEP_SNAPSHOT_DAYS
    thin_minutes: Annotated[
        float,
        typer.Option(
            envvar="AGENT_THIN_MINUTES",
            min=0,
            help="Remove old probes and events this often, in minutes; 0 keeps all of them.",
            rich_help_panel=BACKGROUND,
        ),
    ] = DEFAULT_THIN_MINUTES
    keep_events: Annotated[
        int,
        typer.Option(
            envvar="AGENT_KEEP_EVENTS",
            min=1000,
            help="Keep this many of the newest events in full, and of older ones only the results"
            " of learning.",
            rich_help_panel=BACKGROUND,
        ),
    ] = DEFAULT_KEEP_EVENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureOptions:
    """What is done about too much load, and about failures."""

    max_queued: Annotated[
        int,
        typer.Option(
            envvar="AGENT_MAX_QUEUED",
            min=1,
            help="Refuse new facts, to be sent again later, while this many wait to be learned.",
            rich_help_panel=FAILURES,
        ),
    ] = DEFAULT_MAX_QUEUED
    max_questions: Annotated[
        int,
        typer.Option(
            envvar="AGENT_MAX_QUESTIONS",
            min=1,
            help="Refuse questions, to be asked again later, while this many wait for an answer.",
            rich_help_panel=FAILURES,
        ),
    ] = DEFAULT_MAX_QUESTIONS
    max_attempts: Annotated[
        int,
        typer.Option(
            envvar="AGENT_MAX_ATTEMPTS",
            min=1,
            help="Quarantine a fact that fails this often, and go on with the next one.",
            rich_help_panel=FAILURES,
        ),
    ] = DEFAULT_MAX_ATTEMPTS
    silent_seconds: Annotated[
        float,
        typer.Option(
            envvar="AGENT_SILENT_SECONDS",
            min=0,
            help="Restart a learner that does not answer for this many seconds; 0: never.",
            rich_help_panel=FAILURES,
        ),
    ] = DEFAULT_SILENT_SECONDS
    stalled_seconds: Annotated[
        float,
        typer.Option(
            envvar="AGENT_STALLED_SECONDS",
            min=0,
            help="Restart a learner whose device makes no progress for this many seconds; 0:"
            " never. Compiling a kernel counts as no progress.",
            rich_help_panel=FAILURES,
        ),
    ] = DEFAULT_STALLED_SECONDS
    drain_seconds: Annotated[
        float,
        typer.Option(
            envvar="AGENT_DRAIN_SECONDS",
            min=0,
            help="Wait at most this many seconds, after SIGTERM, for the update in progress. The"
            " server stops 15 seconds later at most.",
            rich_help_panel=FAILURES,
        ),
    ] = DEFAULT_DRAIN_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservabilityOptions:
    """Metrics, traces and the log. See docs/operations."""

    metrics_port: Annotated[
        int | None,
        typer.Option(
            envvar="AGENT_METRICS_PORT",
            min=0,
            max=65535,
            help="Serve Prometheus metrics over HTTP on this port; 0 takes any free one.",
            show_default="none are served",
            rich_help_panel=OBSERVABILITY,
        ),
    ] = None
    metrics_host: Annotated[
        str,
        typer.Option(
            envvar="AGENT_METRICS_HOST",
            help="Serve metrics on this address. Anybody who reaches it can read them.",
            rich_help_panel=OBSERVABILITY,
        ),
    ] = DEFAULT_METRICS_HOST
    trace_to: Annotated[
        str,
        typer.Option(
            envvar="AGENT_TRACE_TO",
            metavar="URL",
            help="Send traces to this OTLP collector, for example http://127.0.0.1:4318/v1/traces."
            " This needs the extra 'tracing' of continual-agent.",
            rich_help_panel=OBSERVABILITY,
        ),
    ] = ""
    log_format: Annotated[
        LogFormat,
        typer.Option(
            envvar="AGENT_LOG_FORMAT",
            help="Write the log as text for people, or as one JSON object a line.",
            rich_help_panel=OBSERVABILITY,
        ),
    ] = LogFormat.TEXT

    def chosen(self) -> Observability:
        """As the server wants it."""
        return Observability(
            metrics_port=self.metrics_port,
            metrics_host=self.metrics_host,
            trace_to=self.trace_to,
            log_format=self.log_format,
        )
