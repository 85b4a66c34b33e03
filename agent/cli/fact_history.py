"""The retention of one fact over time as text, and the updates that moved its answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.client.client import Client
from agent.client.types import Influence
from agent.errors import AgentError
from agent.monitor.lines import Glyphs
from agent.monitor.plots import bars
from memory_store.vocabulary import Fact, Probe, ProbeKind

TITLE = "Retention over time: p of the answer, probe by probe"
ROWS = 5


def own_probes(probes: Sequence[Probe]) -> list[Probe]:
    """Selects the probes of the fact's own question, oldest first."""
    return [probe for probe in reversed(probes) if probe.kind is not ProbeKind.TRANSFER]


def remembered_lines(probes: Sequence[Probe], width: int, glyphs: Glyphs) -> list[str]:
    """Draws the last probes; nothing if there are fewer than two.

    Args:
        probes: of its own question, oldest first.
        width: the most columns.
        glyphs: to draw with.
    """
    if len(probes) < 2:
        return []
    shown_ = probes[-max(width - 6, 1) :]
    values = [math.exp(min(probe.log_probability, 0.0)) for probe in shown_]
    cell = max(1, min(3, (width - 6) // len(values)))
    labels = {0: "1.0 |", ROWS - 1: "0.0 |"}
    drawn = bars(values, ROWS, glyphs, cell)
    lines = [f"{labels.get(n, '    |')}{text}".rstrip() for n, text in enumerate(drawn)]
    first, last = shown_[0].model_version, shown_[-1].model_version
    return [TITLE, *lines, f"     version {first} to {last}, {len(shown_)} probes"]


def touching(client: Client, fact: Fact) -> list[Influence]:
    """The updates that moved its answer most; none if it was erased or not probed."""
    try:
        explained = client.explain(fact.question)
    except AgentError:
        return []
    # A newer fact may have the same question.
    return list(explained.influences) if explained.fact_id == fact.id else []
