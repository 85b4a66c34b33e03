"""Experiment 1, figure 1: one fact, one step, a hundred rates.

Each of the ten facts is trained by itself. This shows its best rate, and whether the best rates of
the ten overlap; the paper claims that they do not (sections 4 and 5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy

from eval.metrics import Count
from eval.suites.paper.facts import TaughtFact
from eval.suites.paper.measurements import Measurement, Pooled
from eval.suites.paper.protocol import Protocol
from eval.suites.paper.trials import BASE_RATE, Stop, Subject, Trial

NUMBER = 1
TITLE = "one fact, one step, at each of many rates"

# A rate is good for a fact if it gives at least this share of what the fact's best rate gives.
GOOD_SHARE = 0.5
# With fewer right answers at its best rate, a fact counts as not learned.
_FEWEST_CORRECT = 5
_RESAMPLED = 1000
NOTHING = Count(0, 0)


def plan(subject: Subject, protocol: Protocol) -> Iterator[Trial]:
    """The base model, then each fact at each rate."""
    numbers = protocol.one_fact
    base = [
        subject.call("", BASE_RATE, 0, numbers.samples, protocol.fixed, facts=[fact])
        for fact in subject.facts
    ]
    yield subject.trial("", BASE_RATE, [Stop(step=0, calls=tuple(base))])
    rates = numbers.rates.rates(subject.seed)
    for fact in subject.facts:
        for rate in rates:
            call = subject.call(fact.id, rate, 1, numbers.samples, protocol.fixed, facts=[fact])
            yield subject.trial(fact.id, rate, [Stop(step=1, calls=(call,))])


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One fact at all rates: its panel of figure 1.

    Attributes:
        fact: which.
        base: before the step.
        rates: ascending.
        results: at each of them.
    """

    fact: TaughtFact
    base: Pooled
    rates: tuple[float, ...]
    results: tuple[Pooled, ...]

    @property
    def best(self) -> int:
        """Number of the rate with most right answers; of equal ones the lowest."""
        counts = [result.count.count for result in self.results]
        return counts.index(max(counts))

    @property
    def learned(self) -> bool:
        """Whether some rate gave enough right answers to speak of a best one."""
        return self.results[self.best].count.count >= _FEWEST_CORRECT

    @property
    def good(self) -> frozenset[int]:
        """Numbers of the rates that are good for this fact; none if it was not learned."""
        if not self.learned:
            return frozenset()
        needed = GOOD_SHARE * self.results[self.best].count.count
        return frozenset(n for n, one in enumerate(self.results) if one.count.count >= needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Whether the facts need the same rate; of the facts that were learned at some rate.

    Attributes:
        learned: how many facts those are.
        ratio: the highest best rate divided by the lowest; None for fewer than two facts.
        pairs: for two facts, the share of rates good for both among the rates good for either;
            the mean over pairs. 1 if all need the same, 0 if no two agree; None for fewer than
            two facts.
        apart: pairs of facts that share no good rate.
        pair_count: pairs of facts.
        common_rate: the single rate with most right answers over all facts.
        good_at_common: facts for which it is good.
        own: right answers over all facts, each at its own best rate. Somewhat too high, because
            it takes the best of many noisy counts.
        common: right answers over all facts at the common rate.
        loss_interval: 95% interval of the difference of these shares, by resampling every count.
    """

    learned: int = 0
    ratio: float | None = None
    pairs: float | None = None
    apart: int = 0
    pair_count: int = 0
    common_rate: float | None = None
    good_at_common: int = 0
    own: Count = NOTHING
    common: Count = NOTHING
    loss_interval: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneFactSummary:
    """Experiment 1 with one set of facts."""

    curves: tuple[Curve, ...]
    overlap: Overlap


def summarize(subject: Subject, cells: Sequence[Measurement]) -> OneFactSummary:
    """Orders the cells of a finished experiment."""
    base: Mapping[str, Pooled] = {
        cell.key.fact_id: Pooled.of([cell]) for cell in cells if not cell.key.step
    }
    curves = []
    for fact in subject.facts:
        own = sorted(
            (cell for cell in cells if cell.key.trained == fact.id),
            key=lambda cell: cell.key.learning_rate,
        )
        curves.append(
            Curve(
                fact=fact,
                base=base[fact.id],
                rates=tuple(cell.key.learning_rate for cell in own),
                results=tuple(Pooled.of([cell]) for cell in own),
            )
        )
    return OneFactSummary(curves=tuple(curves), overlap=_overlap(curves, subject.seed))


def _overlap(curves: Sequence[Curve], seed: int) -> Overlap:
    learned = [curve for curve in curves if curve.learned]
    if not learned:
        return Overlap()
    best = [curve.rates[curve.best] for curve in learned]
    pairs = [
        len(one.good & other.good) / len(one.good | other.good)
        for number, one in enumerate(learned)
        for other in learned[:number]
    ]
    correct = numpy.array([[result.count.count for result in curve.results] for curve in learned])
    asked = numpy.array([[result.count.total for result in curve.results] for curve in learned])
    shares = correct / asked  # [facts, rates]
    common = int(shares.mean(0).argmax())
    return Overlap(
        learned=len(learned),
        ratio=max(best) / min(best) if len(learned) > 1 else None,
        pairs=sum(pairs) / len(pairs) if pairs else None,
        apart=sum(not pair for pair in pairs),
        pair_count=len(pairs),
        common_rate=learned[0].rates[common],
        good_at_common=sum(common in curve.good for curve in learned),
        own=Count.sum(curve.results[curve.best].count for curve in learned),
        common=Count.sum(curve.results[common].count for curve in learned),
        loss_interval=_loss_interval(shares, asked, seed),
    )


def _loss_interval(shares: numpy.ndarray, asked: numpy.ndarray, seed: int) -> tuple[float, float]:
    """The cost of a common rate, when every count is drawn again from its share."""
    # Jeffreys' prior: a count of zero does not mean that no answer can be right.
    smoothed = (shares * asked + 0.5) / (asked + 1)
    drawn = numpy.random.default_rng(seed % 2**63).binomial(
        asked, smoothed, size=(_RESAMPLED, *asked.shape)
    )
    again = drawn / asked  # [resampled, facts, rates]
    losses = again.max(2).mean(1) - again.mean(1).max(1)
    low, high = numpy.quantile(losses, (0.025, 0.975))
    return float(low), float(high)
