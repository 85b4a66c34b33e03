"""What a run shows, in sentences: where it agrees with the paper, and where it differs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from eval.metrics import Count, difference_interval
from eval.suites.paper import reference
from eval.suites.paper.batch_of_ten import BatchSummary, Row
from eval.suites.paper.courses import CoursesSummary
from eval.suites.paper.facts import PAPER
from eval.suites.paper.one_fact import GOOD_SHARE, OneFactSummary
from eval.suites.paper.rate_sweep import SweepSummary
from eval.suites.paper.reference import AS_CODED, AS_PRINTED
from eval.suites.paper.summary import RunSummary

# Shares agree only if the 95% interval of their difference is at most this wide.
_WIDEST = 0.1
# Noise counts as more from this ratio on, because it is an estimate itself.
_NOISIER = 1.25


class Verdict(StrEnum):
    """How a share of ours compares with another one."""

    AGREES = "agrees"
    HIGHER = "higher"
    LOWER = "lower"
    UNCLEAR = "unclear"

    @property
    def words(self) -> str:
        """The end of a sentence about ours."""
        unclear = "is too uncertain to tell" if self is Verdict.UNCLEAR else f"is {self.value}"
        return self.value if self is Verdict.AGREES else unclear


def verdict(ours: Count, theirs: Count) -> Verdict:
    """How our share compares with theirs, at 95%.

    It agrees if the difference may be chance, and is known well enough to say so.
    """
    low, high = difference_interval(theirs, ours)
    if low > 0:
        return Verdict.HIGHER
    if high < 0:
        return Verdict.LOWER
    return Verdict.AGREES if high - low <= _WIDEST else Verdict.UNCLEAR


def findings(run: RunSummary) -> dict[int, list[str]]:
    """Sentences by experiment."""
    by_number: dict[int, list[str]] = {number: [] for number in run.request.experiments}
    for fact_set in run.request.fact_sets:
        name = f"The {fact_set} facts: "
        if fact_set in run.one_fact:
            by_number[1] += [name + about_best_rates(run.one_fact[fact_set])]
        if fact_set in run.batch_of_ten:
            by_number[2] += [name + _batch(run.batch_of_ten[fact_set], run, fact_set)]
        if fact_set in run.rate_sweep:
            by_number[3] += [name + _sweep(run.rate_sweep[fact_set], run, fact_set)]
        if fact_set in run.many_steps:
            by_number[4] += [name + _many_steps(run.many_steps[fact_set])]
    if PAPER in run.one_fact:
        by_number[1] += _beside_figure_1(run)
    if PAPER in run.batch_of_ten:
        by_number[2] += _beside_tables(run.batch_of_ten[PAPER], run)
    for number in (3, 4):
        if number in by_number:
            by_number[number].append(
                f"The paper prints figure {number - 1} without numbers, so what can be compared is"
                " its course."
            )
    return by_number


def shown_share(share: float) -> str:
    """A share as a percentage with digits that matter."""
    return f"{100 * share:.3g}%"


def _rate(rate: float) -> str:
    return f"{rate:.2e}"


def about_best_rates(summary: OneFactSummary) -> str:
    """Whether each fact has a best rate, and how far these overlap: what experiment 1 shows."""
    overlap, facts = summary.overlap, len(summary.curves)
    if not overlap.learned or overlap.common_rate is None:
        return (
            f"none of the {facts} facts was answered often enough at any rate to have a best one."
        )
    learned = [curve for curve in summary.curves if curve.learned]
    best = sorted(curve.rates[curve.best] for curve in learned)
    text = (
        f"{overlap.learned} of {facts} have a best rate, from {_rate(best[0])} to"
        f" {_rate(best[-1])}; there {_counted(overlap.own)} are right."
    )
    cut_off = sum(bool(curve.good & {0, len(curve.rates) - 1}) for curve in learned)
    if cut_off:
        text += (
            f" For {cut_off} of them the lowest or the highest rate that was tried still gives at"
            " least half of the best, so better ones may lie beyond."
        )
    if overlap.ratio is None or overlap.pairs is None:
        return text
    low, high = overlap.loss_interval
    if overlap.pairs < GOOD_SHARE:
        claim = "so most facts want different rates, as the paper claims."
    elif cut_off > len(learned) / 2:
        claim = (
            "but as the range ends before most counts fall, that does not tell whether the best"
            " rates overlap."
        )
    else:
        claim = "so the best rates overlap more than the paper claims."
    return text + (
        f" The best rates differ by a factor of {overlap.ratio:.3g}. Two facts have on average"
        f" {shown_share(overlap.pairs)} of their good rates in common (rates that give at least"
        f" half of the best), and {overlap.apart} of {overlap.pair_count} pairs have none, {claim}"
        f" One rate for all, {_rate(overlap.common_rate)}, is good for {overlap.good_at_common} of"
        f" {overlap.learned} and gives {_counted(overlap.common)}: {shown_share(low)} to"
        f" {shown_share(high)} of all samples are lost by sharing it."
    )


def _beside_figure_1(run: RunSummary) -> list[str]:
    zogron = run.one_fact[PAPER].curves[0]
    ours = zogron.results[zogron.best].count
    top = max(reference.FIGURE_1, key=lambda point: point.correct)
    theirs = Count(top.correct, reference.FIGURE_1_SAMPLES)
    text = (
        f"The Zogron fact at its best rate: ours {_counted(ours)} at"
        f" {_rate(zogron.rates[zogron.best])}; published {_counted(theirs)} at"
        f" {_rate(top.learning_rate)} (read off a plot): ours {verdict(ours, theirs).words}."
    )
    sentences = [text + _other_model(run)]
    if run.zogron_loss is not None:
        sentences.append(
            f"Its training loss before the step: ours {run.zogron_loss:.3f}, published"
            f" {reference.ZOGRON_LOSS:.3f}."
        )
    return sentences


def _batch(summary: BatchSummary, run: RunSummary, fact_set: str) -> str:
    before, after = _together(summary.trained)
    low, high = difference_interval(before, after)
    changed = "more than before" if low > 0 else "less than before" if high < 0 else "no clear gain"
    correlated = _together(summary.correlated)
    text = (
        f"trained questions were right in {_counted(before)} before the step and"
        f" {_counted(after)} after it ({changed}); correlated ones in {_counted(correlated[0])}"
        f" and {_counted(correlated[1])}."
    )
    alone = run.one_fact.get(fact_set)
    if alone is not None and alone.overlap.learned:
        text += (
            " Each fact alone, at its own best rate, reached"
            f" {shown_share(alone.overlap.own.rate or 0.0)} (experiment 1, with other sampling"
            f" parameters), the batch {shown_share(after.rate or 0.0)}."
        )
    return text


def _beside_tables(summary: BatchSummary, run: RunSummary) -> list[str]:
    sentences = []
    for number, rows, theirs in (
        (1, summary.trained, reference.TABLE_1),
        (2, summary.correlated, reference.TABLE_2),
    ):
        by_total = []
        for total in (AS_CODED, AS_PRINTED):
            verdicts = [
                verdict(row.after.count, one.counts(total)[1])
                for row, one in zip(rows, theirs, strict=True)
            ]
            agree, higher, lower, unclear = map(verdicts.count, Verdict)
            by_total.append(
                f"of {total:,} samples, of {len(verdicts)} questions {agree} agree, {higher} are"
                f" higher here, {lower} lower, and for {unclear} there are too few samples here to"
                " tell"
            )
        sentences.append(
            f"Beside table {number} after the step: if the published counts are "
            f"{'; if they are '.join(by_total)} (at 95%: about one in twenty differs by chance)."
            + _other_model(run)
        )
    return sentences


def _sweep(summary: SweepSummary, run: RunSummary, fact_set: str) -> str:
    parts = []
    for step, noise in enumerate(summary.noise, start=1):
        best = summary.courses[summary.best(step - 1)]
        count = best.over_facts(step - 1).count
        parts.append(
            f"after step {step} at most {_counted(count)} were right (all ten together, at"
            f" {_rate(best.learning_rate)}), and neighboring rates differ"
            f" {'by nothing' if noise is None else f'{noise:.3g} times as much as by chance'}"
        )
    text = "; ".join(parts) + "."
    first, last = summary.noise[0], summary.noise[-1]
    if first is not None and last is not None:
        text += (
            " So more steps bring more noise, as the paper says."
            if last > _NOISIER * first
            else " So more steps bring hardly more noise, unlike in the paper."
        )
    alone = run.one_fact.get(fact_set)
    if alone is not None and alone.overlap.learned:
        together = summary.courses[summary.best(0)].over_facts(0).count
        apart = alone.overlap.own
        low, high = difference_interval(together, apart)
        hurts = "hurts, as the paper says" if low > 0 else "helps" if high < 0 else "does not hurt"
        text += (
            f" One step on the batch gives at best {shown_share(together.rate or 0.0)}, on each"
            f" fact alone {shown_share(apart.rate or 0.0)} (experiment 1): the batch {hurts}."
        )
    return text


def _many_steps(summary: CoursesSummary) -> str:
    parts = []
    for course in summary.courses:
        best, last = (course.over_facts(place).count for place in (course.best, -1))
        low, _ = difference_interval(last, best)
        falls = "then falls" if low > 0 else "no clear fall"
        rates = [course.over_steps(f).count.count for f in range(len(summary.facts))]
        parts.append(
            f"at {_rate(course.learning_rate)} most, {_counted(best)}, are right after"
            f" step {course.steps[course.best]}, and {_counted(last)} after step"
            f" {course.steps[-1]} ({falls}); over all steps the ten facts range from"
            f" {min(rates)} to {max(rates)} right"
        )
    return "; ".join(parts) + "."


def _together(rows: Sequence[Row]) -> tuple[Count, Count]:
    return (
        Count.sum(row.before.count for row in rows),
        Count.sum(row.after.count for row in rows),
    )


def _counted(count: Count) -> str:
    return f"{count.count:,} of {count.total:,} ({shown_share(count.rate or 0.0)})"


def _other_model(run: RunSummary) -> str:
    if run.published_model:
        return ""
    return f" But the published numbers are of {reference.MODEL}, and these of {run.model}."
