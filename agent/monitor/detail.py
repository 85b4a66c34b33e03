"""One fact in detail, as lines: the findings of its attempt, and its retention."""

from __future__ import annotations

import math

from agent.monitor import plots
from agent.monitor.lines import Line, rule
from agent.monitor.observations import DetailSeen
from agent.monitor.panes import Look
from agent.monitor.styles import STATE_STYLES
from agent.monitor.text import fit, wrap
from memory_store.vocabulary import Fact, FactState, ProbeKind


def fact_lines(fact: Fact, look: Look, width: int, height: int) -> list[Line]:
    """Returns the fact, the answers before and after its attempt, and its rate curve."""
    ellipsis = look.glyphs.ellipsis
    lines: list[Line] = [[(text, "bold")] for text in wrap(fact.question, width, 3, ellipsis)]
    arrow = look.glyphs.arrow
    lines += [[(text, "cyan")] for text in wrap(f"{arrow} {fact.answer}", width, 2, ellipsis)]
    lines.append([(fact.state.value, STATE_STYLES.get(fact.state, "yellow"))])
    if fact.reason:
        lines += [[(text, "red")] for text in wrap(fact.reason, width, 2, ellipsis)]
    learning = fact.learning
    if learning is None:
        return lines
    rates = learning.learning_rates
    before, after = learning.probability_before, learning.probability_after
    lines.append([(f"{len(rates)} steps, p {before:.3f} {arrow} {after:.3f}", "")])
    if fact.state is FactState.FORGOTTEN:
        lines[-1].append((", undone since", "red"))
    elif fact.state is FactState.RESISTED:
        lines[-1].append((", put back", "red"))
    for name, text in (("before", learning.answer_before), ("after", learning.answer_after)):
        lines.append([(f"{name:7}", "dim"), (fit(f'"{text}"', width - 7, ellipsis), "")])
    for name, figure in (("leak", learning.leak), ("drift", learning.drift)):
        if figure is not None:
            lines.append([(f"{name:7}", "dim"), (f"{figure:.3f}", "")])
    rows = min(height - len(lines) - 1, 12)
    if learning.curve and rows >= 2:
        lines.append([("p after one step, by learning rate", "dim")])
        lines += plots.curve(learning.curve, next(iter(rates), None), width, rows, look.glyphs)
    return lines


def history_lines(history: DetailSeen | None, look: Look, width: int) -> list[Line]:
    """Returns probes of the fact's own question, oldest first, and the updates that taught it."""
    if history is None:
        return [[("asking the server", "dim")]]
    own = [probe for probe in history.probes if probe.kind is not ProbeKind.TRANSFER]
    values = [_probability(probe.log_probability) for probe in reversed(own)]
    lines: list[Line] = []
    if values:
        shown = values[-max(width - 5, 1) :]
        cell = max(1, min(3, (width - 5) // len(shown)))
        for number, text in enumerate(plots.bars(shown, 4, look.glyphs, cell)):
            lines.append([("1.0  " if number == 0 else "     ", "dim"), (text, "green")])
        versions = [probe.model_version for probe in reversed(own)][-len(shown) :]
        ends = f"version {versions[0]} to {versions[-1]}, {len(shown)} probes"
        lines.append([("     ", ""), (ends, "dim")])
        style = plots.quality(values[-1])
        lines.append([("last ", ""), (f"{values[-1]:.3f} ", f"bold {style}")])
        lines[-1].append((fit(f'"{own[0].answer}"', width - 11, look.glyphs.ellipsis), ""))
    else:
        lines.append([("never probed", "dim")])
    lines += [[], rule(("updates that taught it", "bold"), width, look.glyphs)]
    for update in history.updates:
        steps = update.steps
        after = f"p {steps[-1].probability:.3f}" if steps else "no steps"
        text = (
            f"version {update.model_version}  {len(steps)} steps  {after}  {update.seconds:.1f} s"
        )
        lines.append([(text, "")])
    return lines


def _probability(log_probability: float) -> float:
    """Converts a recorded value, even one above 0."""
    return math.exp(min(log_probability, 0.0))
