"""Settings of the server, checked. The command line fills them in (flag, environment, file)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from agent.teaching.limits import TeachingLimits
from agent.teaching.rates import DEFAULT_POLICY
from memory_store.vocabulary import Policy

# In the data folder, and so in a backup.
DATABASE = "memory.db"
SNAPSHOTS = "snapshots"
DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_MODEL = "pythia-410m"
DEFAULT_MAX_ATTEMPTS = 3
DEFAULT_SILENT_SECONDS = 30.0
DEFAULT_STALLED_SECONDS = 600.0
DEFAULT_MAX_QUESTIONS = 256
DEFAULT_KEEP_EVENTS = 50_000
# Further reasons for a snapshot, unless snapshots are switched off.
SNAPSHOT_UPDATES = 100
SNAPSHOT_MINUTES = 10.0


class LogFormat(StrEnum):
    """How the log is written: lines for people, or an object a line for machines."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observability:
    """How a server is watched.

    Attributes:
        metrics_port: of Prometheus metrics over HTTP, 0 for any free one; None: none are served.
        metrics_host: address that they are served on.
        trace_to: URL of an OTLP collector; empty: nothing is traced.
        log_format: see there.
    """

    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    trace_to: str = ""
    log_format: LogFormat = LogFormat.TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """Who may speak to a server, and how.

    Attributes:
        tls_cert: the server's certificate (PEM, with its chain); None: no TLS.
        tls_key: its private key.
        tls_client_ca: clients must show a certificate that this CA signed; None: they need none.
        tokens: file of the tokens that clients must show; None: they need none.
        insecure_listen: listen without TLS and authentication even where others can connect.
        rate_limit: calls a second of one client; 0 for any number.
    """

    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tokens: Path | None = None
    insecure_listen: bool = False
    rate_limit: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """What `agent serve` needs to know.

    Attributes:
        listen: HOST:PORT; port 0 takes any free one.
        data: folder of the database; made if missing.
        model: known name, Hugging Face id or folder.
        device: auto, cpu or cuda.
        threads: CPU threads of the learner; None leaves it to torch.
        policy: for facts that bring none.
        limits: what facts may bring.
        audit_minutes: between two retention audits; 0 for none.
        predict_minutes: between two fits of what the policy `predicted` expects; 0 for none.
        review_seconds: between two looks for facts that are due for review; 0 for none.
        snapshot_seconds: seconds of learning after which a snapshot is written, which limits the
            time of a restart; 0: none is, while the server runs. One is also written after
            `SNAPSHOT_UPDATES` updates, and every `SNAPSHOT_MINUTES` if anything was learned.
        keep_snapshots: number of the newest snapshots to keep.
        keep_snapshot_days: number of days of which the newest snapshot is kept too.
        max_queued: new facts are refused while this many wait to be learned.
        silent_seconds: a learner that does not answer for this long is restarted; 0: never.
        stalled_seconds: likewise one whose device makes no progress in one piece of work.
        max_questions: further ones are refused while this many wait for an answer.
        max_attempts: a fact that fails this often is quarantined.
        thin_minutes: between two looks for old probes and events to remove; 0: nothing is removed.
        keep_events: the newest events that stay as they are.
        allow_network_filesystem: serve a data folder that is on a network file system.
        accept_drift: serve weights that replay differently from what was recorded.
        samples: sampled for each question of a fact after its update; 0 for none.
        drain_seconds: on SIGTERM, the longest wait for the update in progress.
        security: who may speak to it.
        observability: how it is watched.
    """

    listen: str
    data: Path
    model: str
    device: str = "auto"
    threads: int | None = None
    policy: Policy = field(default=DEFAULT_POLICY)
    limits: TeachingLimits = field(default_factory=TeachingLimits)
    audit_minutes: float = 10.0
    predict_minutes: float = 5.0
    review_seconds: float = 60.0
    snapshot_seconds: float = 20.0
    keep_snapshots: int = 3
    keep_snapshot_days: int = 7
    max_queued: int = 100_000
    silent_seconds: float = DEFAULT_SILENT_SECONDS
    stalled_seconds: float = DEFAULT_STALLED_SECONDS
    max_questions: int = DEFAULT_MAX_QUESTIONS
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    thin_minutes: float = 1.0
    keep_events: int = DEFAULT_KEEP_EVENTS
    allow_network_filesystem: bool = False
    accept_drift: bool = False
    samples: int = 0
    drain_seconds: float = 60.0
    security: Security = field(default_factory=Security)
    observability: Observability = field(default_factory=Observability)
