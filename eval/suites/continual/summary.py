"""The counts of a run of the suite `continual`.

R[i, j] is the matrix of Lopez-Paz & Ranzato (2017), "Gradient Episodic Memory": whether fact j is
answered after fact i was taught. Row i exists for the measured i, and R[i, i] for every fact, from
its own turn.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from eval.metrics import Count, mean
from eval.suites.continual.general_texts import GeneralScores
from eval.suites.continual.leaks import Leaks, count_leaks
from eval.suites.continual.run import History, Measurement, Task

# Facts taught since, from each of these numbers up to the next.
AGES = (0, 1, 10, 30, 100, 300, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralChange:
    """General damage, against the base model.

    Attributes:
        wikitext: relative change of the perplexity: 0.1 is 10% more.
        mixed: the same for sentences of mixed origin.
        lambada: the same for LAMBADA's last words.
        lambada_accuracy: difference of the accuracies.
    """

    wikitext: float
    mixed: float
    lambada: float
    lambada_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One measurement, counted.

    Attributes:
        taught: facts taught before.
        recall: facts answered right, of all taught before.
        paraphrase: paraphrased questions answered right, two for each.
        transfer: correlated questions answered right.
        leaks: into the answers to control questions.
        general: perplexities; None if left out.
        change: of them, against the base model.
        seconds: wall time of measuring.
    """

    taught: int
    recall: Count
    paraphrase: Count
    transfer: Count
    leaks: Leaks
    general: GeneralScores | None
    change: GeneralChange | None
    seconds: float

    @property
    def counts(self) -> dict[str, Count]:
        """All counts by their names in results."""
        return {
            "recall": self.recall,
            "paraphrase": self.paraphrase,
            "transfer": self.transfer,
            "leak": self.leaks.leaked,
            "leak_exact": self.leaks.leaked_exactly,
            "control_changed": self.leaks.changed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeGroup:
    """Facts after which about equally many others were taught.

    Attributes:
        youngest: fewest facts taught since.
        oldest: most.
        recall: those answered right in the end.
    """

    youngest: int
    oldest: int
    recall: Count


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, median and range of some numbers; None throughout of none."""

    mean: float | None = None
    median: float | None = None
    min: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        """What describes these numbers."""
        if not numbers:
            return cls()
        return cls(mean(numbers), statistics.median(numbers), min(numbers), max(numbers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One teacher's run.

    Attributes:
        name: the teacher's.
        history: what was found, one by one.
        checkpoints: counted; the base model first.
        own_turn: facts answered right after their own turn: the diagonal R[i, i].
        accuracy: ACC, the mean of the last row of R.
        lost: of the facts before the last, right after their turn and wrong in the end.
        gained: wrong after their turn and right in the end.
        ages: recall in the end by the number of facts taught since.
        steps: gradient steps a fact.
        seconds: wall time a fact.
        candidates: learning rates scored a fact.
        rates: learning rates of all steps.
        rate_counts: how often each rate was taken, in ascending order.
        verdicts: facts by verdict.
        retaught: how often a review found a fact lost and it was taught again.
    """

    name: str
    history: History
    checkpoints: tuple[Checkpoint, ...]
    own_turn: Count
    accuracy: Count
    lost: Count
    gained: Count
    ages: tuple[AgeGroup, ...]
    steps: Spread
    seconds: Spread
    candidates: Spread
    rates: Spread
    rate_counts: dict[float, int]
    verdicts: dict[str, int]
    retaught: int

    @property
    def last(self) -> Checkpoint:
        """After all facts."""
        return self.checkpoints[-1]

    @property
    def backward_transfer(self) -> float | None:
        """BWT, mean of R[T, i] - R[i, i] over the facts before the last.

        None of one fact, and of a teacher that has no turns.
        """
        if not self.lost.total or self.history.sees_all:
            return None
        return (self.gained.count - self.lost.count) / self.lost.total


def summarize(name: str, task: Task, history: History) -> Summary:
    """Counts what a finished run found."""
    base, last = history.measurements[0], history.measurements[-1]
    own = [taught.answer.correct for taught in history.taught]
    final = [answer.correct for answer in last.retention]
    earlier = list(zip(own, final, strict=True))[:-1]
    rates = [rate for taught in history.taught for rate in taught.learning_rates]
    return Summary(
        name=name,
        history=history,
        checkpoints=tuple(_checkpoint(task, base, m) for m in history.measurements),
        own_turn=Count.of(own),
        accuracy=Count.of(final),
        lost=Count.of(then and not now for then, now in earlier),
        gained=Count.of(now and not then for then, now in earlier),
        ages=_ages(final),
        steps=Spread.of([len(taught.learning_rates) for taught in history.taught]),
        seconds=Spread.of([taught.seconds for taught in history.taught]),
        candidates=Spread.of([taught.candidates for taught in history.taught]),
        rates=Spread.of(rates),
        rate_counts=dict(sorted(Counter(rates).items())),
        verdicts=dict(sorted(Counter(taught.verdict for taught in history.taught).items())),
        retaught=sum(len(taught.retaught) for taught in history.taught),
    )


def _checkpoint(task: Task, base: Measurement, measured: Measurement) -> Checkpoint:
    taught = {fact.answer for fact in task.facts[: measured.taught]}
    return Checkpoint(
        taught=measured.taught,
        recall=Count.of(answer.correct for answer in measured.retention),
        paraphrase=Count.of(answer.correct for answer in measured.paraphrase),
        transfer=Count.of(answer.correct for answer in measured.transfer),
        leaks=count_leaks(base.controls, measured.controls, taught),
        general=measured.general,
        change=_change(base.general, measured.general),
        seconds=measured.seconds,
    )


def _change(before: GeneralScores | None, after: GeneralScores | None) -> GeneralChange | None:
    if before is None or after is None:
        return None
    return GeneralChange(
        wikitext=after.wikitext_perplexity / before.wikitext_perplexity - 1,
        mixed=after.mixed_perplexity / before.mixed_perplexity - 1,
        lambada=after.lambada_perplexity / before.lambada_perplexity - 1,
        lambada_accuracy=(after.lambada_correct - before.lambada_correct) / after.lambada_total,
    )


def _ages(final: Sequence[bool]) -> tuple[AgeGroup, ...]:
    """Groups the facts, each once, by how many were taught after them."""
    groups = []
    for youngest, following in zip(AGES, (*AGES[1:], math.inf), strict=True):
        oldest = min(following, len(final)) - 1
        if youngest > oldest:
            break
        # Fact j of N, counted from 0, was followed by N - 1 - j others.
        members = [final[len(final) - 1 - age] for age in range(youngest, int(oldest) + 1)]
        groups.append(AgeGroup(youngest=youngest, oldest=int(oldest), recall=Count.of(members)))
    return tuple(groups)
