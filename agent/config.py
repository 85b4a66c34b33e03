"""Settings of the server, checked. The command line fills them in (flag, environment, file)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agent.learning.rates import DEFAULT_POLICY
from memory_store.records import Policy

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_MODEL = "pythia-410m"
DEFAULT_AUDIT_MINUTES = 10.0


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
        audit_minutes: between two retention audits; 0 for none.
    """

    listen: str
    data: Path
    model: str
    device: str = "auto"
    threads: int | None = None
    policy: Policy = field(default=DEFAULT_POLICY)
    audit_minutes: float = DEFAULT_AUDIT_MINUTES
