"""The report on a running service: what it learned, how well it remembers, and what that cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from eval.metrics import Count
from eval.reports.html import page
from eval.reports.plots import Picture, bars_by_age, draw, rate_histogram, require_matplotlib
from eval.reports.tables import NONE, Table, shown_ages, shown_count, shown_number
from memory_store.vocabulary import (
    HELD,
    Event,
    EventKind,
    Fact,
    FactRetention,
    FactState,
    Learning,
    Retention,
)

# From this probability on, greedy generation certainly yields the answer.
HELD_PROBABILITY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord:
    """The data of a running service.

    Attributes:
        model: its name in the settings.
        model_version: the served one.
        counts: of all facts, by state.
        facts: in the order accepted.
        remembered: the last probes of held facts, in the order accepted.
        ages: what reviews found, by age.
        events: in order.
        leak_limit: the largest leak that the guards accept.
        drift_limit: the largest drift that the guards accept, in nats a token.
    """

    model: str
    model_version: int
    counts: dict[FactState, int]
    facts: Sequence[Fact]
    remembered: Sequence[FactRetention]
    ages: Sequence[Retention]
    events: Sequence[Event]
    leak_limit: float
    drift_limit: float


def service_page(record: ServiceRecord, provenance: dict[str, Any]) -> str:
    """One page of HTML with everything in it.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    title = f"What {record.model} was taught, at version {record.model_version}"
    tables = [overview(record), forgetting(record), lost(record)]
    return page(title, tables, service_pictures(record), provenance)


def service_pictures(record: ServiceRecord) -> list[Picture]:
    """The pictures for which there are data.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    require_matplotlib()
    drawn = []
    if learned := _learned(record):
        caption = "Facts learned, by the version of the model"
        drawn.append(draw("learned", caption, partial(_course, [v for v, _ in learned])))
    if record.ages:
        caption = "Facts still held when they were reviewed, by updates since they were taught"
        ages = [_by_age(age) for age in record.ages]
        drawn.append(draw("retention", caption, lambda axes: bars_by_age(axes, [("", ages)])))
    if any(fact.points for fact in record.remembered):
        caption = "The last probes of held facts (green: held)"
        drawn.append(draw("probes", caption, partial(_probes, record.remembered)))
    if rates := Counter(rate for _, learning in learned for rate in learning.learning_rates):
        caption = "Learning rates of all steps"
        drawn.append(draw("rates", caption, lambda axes: rate_histogram(axes, rates)))
    for name, figures, limit, what in (
        ("leak", [(v, f.leak) for v, f in learned], record.leak_limit, "probability"),
        ("drift", [(v, f.drift) for v, f in learned], record.drift_limit, "nats a token"),
    ):
        if measured := [(version, figure) for version, figure in figures if figure is not None]:
            caption = f"{name.capitalize()} of each update, and the limit of the guards"
            drawn.append(draw(name, caption, partial(_figures, measured, limit, what)))
    return drawn


def overview(record: ServiceRecord) -> Table:
    """Counts, and medians of steps and rates."""
    learned = [learning for _, learning in _learned(record)]
    steps = sorted(len(learning.learning_rates) for learning in learned)
    rates = sorted(rate for learning in learned for rate in learning.learning_rates)
    asked = [fact.points[0].probability for fact in record.remembered if fact.points]
    held = Count.of(p >= HELD_PROBABILITY for p in asked)
    reviews = Count.sum(Count(age.held, age.asked) for age in record.ages)
    rows = [(state.value, str(count)) for state, count in record.counts.items() if count]
    rows += [
        ("held at the last probe", shown_count(held)),
        ("held when reviewed", shown_count(reviews)),
        ("steps a fact: median", str(steps[len(steps) // 2]) if steps else NONE),
        ("learning rate: median", shown_number(rates[len(rates) // 2] if rates else None)),
        ("largest leak", shown_number(_largest(learning.leak for learning in learned))),
        ("largest drift", shown_number(_largest(learning.drift for learning in learned))),
    ]
    return Table("Facts", ("", "of the facts in this report"), tuple(rows))


def forgetting(record: ServiceRecord) -> Table:
    """When a held fact was lost from the weights and taught again; newest first."""
    questions = {fact.id: fact.question for fact in record.facts}
    rows = tuple(
        (
            f"{event.at:%Y-%m-%d %H:%M:%S}",
            questions.get(event.fact_id, event.fact_id),
            shown_number(event.learning.probability_before if event.learning else None),
            shown_number(event.learning.probability_after if event.learning else None),
        )
        for event in reversed(record.events)
        if event.kind is EventKind.RETAUGHT
    )
    return Table("Forgotten, and taught again", ("when", "question", "p then", "p after"), rows)


def lost(record: ServiceRecord) -> Table:
    """Held facts that the last probe did not find, the worst first."""
    facts = {fact.id: fact for fact in record.facts}
    found = [
        fact
        for fact in record.remembered
        if fact.points and fact.points[0].probability < HELD_PROBABILITY
    ]
    found.sort(key=lambda fact: fact.points[0].probability)
    rows = tuple(
        (
            facts[fact.fact_id].question if fact.fact_id in facts else fact.fact_id,
            facts[fact.fact_id].answer if fact.fact_id in facts else "",
            shown_number(fact.points[0].probability),
            str(fact.age),
        )
        for fact in found
    )
    return Table("Lost at the last probe", ("question", "answer", "p", "age"), rows)


def _learned(record: ServiceRecord) -> list[tuple[int, Learning]]:
    """Version and learning record of each held fact that has an update, by version."""
    found = [
        (fact.learning.model_version, fact.learning)
        for fact in record.facts
        if fact.state in HELD and fact.learning is not None and fact.learning.model_version
    ]
    return sorted(found, key=lambda pair: pair[0])


def _by_age(age: Retention) -> tuple[str, Count]:
    return shown_ages(age.youngest, age.oldest), Count(age.held, age.asked)


def _largest(figures: Iterable[float | None]) -> float | None:
    return max((figure for figure in figures if figure is not None), default=None)


def _course(versions: Sequence[int], axes: Any) -> None:
    axes.step([0, *versions], [0, *accumulate(1 for _ in versions)], where="post")
    axes.set(xlabel="model version", ylabel="facts", xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)


def _figures(measured: Sequence[tuple[int, float]], limit: float, what: str, axes: Any) -> None:
    versions, figures = zip(*measured, strict=True)
    axes.plot(versions, figures, marker=".", linestyle="none")
    axes.axhline(limit, color="C3", linewidth=1, label="limit")
    axes.set(xlabel="model version", ylabel=what, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()


def _probes(remembered: Sequence[FactRetention], axes: Any) -> None:
    depth = max(len(fact.points) for fact in remembered)
    nothing = float("nan")
    rows = [
        [fact.points[row].probability if row < len(fact.points) else nothing for fact in remembered]
        for row in range(depth)
    ]
    axes.imshow(rows, aspect="auto", cmap="RdYlGn", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="held facts, the oldest first", ylabel="probes ago")
    axes.set_yticks(range(depth))
