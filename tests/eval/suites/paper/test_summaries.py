"""What the cells of each experiment add up to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eval.metrics import Count, difference_interval, wilson_interval
from eval.suites.paper import one_fact, rate_sweep
from eval.suites.paper.courses import summarize_courses
from eval.suites.paper.facts import PAPER_FACTS
from eval.suites.paper.findings import Verdict, about_best_rates, verdict
from eval.suites.paper.measurements import Measurement, Pooled
from eval.suites.paper.trials import CellKey, Subject
from memory_store.vocabulary import ProbeKind

SUBJECT = Subject(experiment=1, fact_set="paper", facts=PAPER_FACTS[:3], seed=0)
RATES = (1e-5, 1e-4, 1e-3, 2e-3)


def cell(
    fact: int, correct: int, *, rate: float, step: int = 1, trained: str = "all", samples: int = 100
) -> Measurement:
    key = CellKey(1, "paper", trained, rate, step, ProbeKind.RETENTION, PAPER_FACTS[fact].id)
    return Measurement(
        key=key,
        question="q",
        answer="a",
        samples=samples,
        correct=correct,
        log_probability=None,
        estimate=None,
        estimate_error=None,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        max_new_tokens=30,
        tokens=0,
        extra_tokens=0,
        examples=(),
    )


def one_fact_of(*curves: tuple[int, ...]) -> one_fact.OneFactSummary:
    cells = [cell(fact, 0, rate=0.0, step=0, trained="") for fact in range(3)]
    for fact, curve in enumerate(curves):
        trained = PAPER_FACTS[fact].id
        cells += [
            cell(fact, n, rate=rate, trained=trained) for rate, n in zip(RATES, curve, strict=True)
        ]
    return one_fact.summarize(SUBJECT, cells)


def test_facts_that_want_the_same_rate():
    summary = one_fact_of((0, 80, 10, 0), (5, 60, 20, 0), (0, 90, 40, 0))
    assert [curve.rates[curve.best] for curve in summary.curves] == [1e-4] * 3
    overlap = summary.overlap
    assert (overlap.learned, overlap.ratio, overlap.pairs, overlap.apart) == (3, 1.0, 1.0, 0)
    assert (overlap.common_rate, overlap.good_at_common) == (1e-4, 3)
    assert overlap.own == overlap.common == Count(count=230, total=300)
    low, high = overlap.loss_interval
    assert (low, high) == (0.0, 0.0)


def test_facts_that_want_different_rates():
    summary = one_fact_of((80, 0, 0, 0), (0, 60, 0, 0), (0, 30, 60, 0))
    overlap = summary.overlap
    assert overlap.ratio == pytest.approx(100)
    assert (overlap.apart, overlap.pair_count) == (2, 3)
    assert overlap.pairs == pytest.approx(1 / 6)  # only the last two share one rate of two
    assert (overlap.common_rate, overlap.good_at_common) == (1e-4, 2)
    assert (overlap.own.count, overlap.common.count) == (200, 90)
    low, high = overlap.loss_interval
    assert 0.25 < low < 110 / 300 < high < 0.5


@pytest.mark.parametrize(
    ("curves", "cut_off", "told"),
    [
        (((0, 80, 10, 0), (5, 60, 20, 0), (0, 90, 40, 0)), 0, "overlap more than the paper claims"),
        (((0, 80, 0, 0), (60, 5, 0, 0), (0, 0, 90, 0)), 1, "different rates, as the paper claims"),
        # All still rise where the range ends, so that all have the same best rate.
        (((0, 1, 40, 90), (0, 2, 45, 60), (0, 0, 30, 80)), 3, "does not tell whether"),
    ],
)
def test_what_is_said_of_the_papers_claim(
    curves: tuple[tuple[int, ...], ...], cut_off: int, told: str
):
    said = about_best_rates(one_fact_of(*curves))
    assert told in said
    beyond = f"For {cut_off} of them the lowest or the highest rate"
    assert (beyond in said) == (cut_off > 0)


def test_a_fact_that_no_rate_teaches_has_no_best_one():
    summary = one_fact_of((0, 80, 0, 0), (0, 0, 4, 0), (0, 0, 0, 0))
    assert [curve.learned for curve in summary.curves] == [True, False, False]
    assert summary.curves[1].good == frozenset()
    assert (summary.overlap.learned, summary.overlap.ratio, summary.overlap.pairs) == (
        1,
        None,
        None,
    )
    none = one_fact_of((0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)).overlap
    assert (none.learned, none.common_rate, none.own.total) == (0, None, 0)


def sweep_of(*steps: tuple[int, ...]) -> rate_sweep.SweepSummary:
    subject = replace(SUBJECT, facts=PAPER_FACTS[:1])
    cells = [cell(0, 0, rate=0.0, step=0, trained="")]
    for step, counts in enumerate(steps, start=1):
        cells += [cell(0, n, rate=r, step=step) for r, n in zip(RATES, counts, strict=True)]
    return rate_sweep.summarize(subject, cells)


def test_the_sweep_averages_steps_and_measures_noise():
    summary = sweep_of((50, 50, 50, 50), (0, 100, 0, 100))
    assert summary.courses[1].over_steps(0).count == Count(count=150, total=200)
    assert [summary.rates[summary.best(step)] for step in (0, 1)] == [1e-5, 1e-4]
    smooth, erratic = summary.noise
    assert smooth == 0
    # Each pair differs by 100; by chance it would be 2 n p (1 - p) = 50, and N / (N - 1) of that.
    assert erratic == pytest.approx(100**2 / (200 * 0.25 * 200 / 199))
    assert sweep_of((0, 0, 0, 0)).noise == (None,)


def test_chance_alone_is_noise_of_one():
    numpy = pytest.importorskip("numpy")
    drawn = numpy.random.default_rng(0).binomial(100, 0.3, size=400)
    cells = [cell(0, 0, rate=0.0, step=0, trained="")]
    cells += [cell(0, int(n), rate=1e-6 * (1 + place)) for place, n in enumerate(drawn)]
    summary = rate_sweep.summarize(replace(SUBJECT, facts=PAPER_FACTS[:1]), cells)
    assert summary.noise[0] == pytest.approx(1, abs=0.15)


def test_courses_by_rate():
    subject = replace(SUBJECT, facts=PAPER_FACTS[:2])
    cells = [cell(fact, 0, rate=0.0, step=0, trained="") for fact in (0, 1)]
    for rate in (1e-5, 1e-4):
        for step in (1, 2):
            cells += [cell(fact, 10 * step + fact, rate=rate, step=step) for fact in (0, 1)]
    summary = summarize_courses(subject, cells)
    assert [course.learning_rate for course in summary.courses] == [1e-5, 1e-4]
    course = summary.courses[0]
    assert course.steps == (1, 2)
    assert course.over_facts(1).count == Count(count=41, total=200)
    assert course.over_steps(1).count == Count(count=32, total=200)


def test_found_puts_cells_together():
    known = replace(cell(0, 3, rate=1e-4), estimate=0.04, estimate_error=0.01, tokens=10)
    other = replace(cell(0, 5, rate=1e-4), estimate=0.06, estimate_error=0.01, tokens=10)
    found = Pooled.of([replace(known, log_probability=0.0), replace(other, log_probability=0.0)])
    assert (found.count, found.probability) == (Count(count=8, total=200), 1.0)
    assert found.estimate == pytest.approx(0.05)
    assert found.estimate_error == pytest.approx(0.01 / 2**0.5)
    interval = found.estimate_interval
    assert interval == pytest.approx((0.05 - 0.01386, 0.05 + 0.01386), abs=1e-4)
    # Counting 200 samples has the variance 0.05 * 0.95 / 200, this 0.00005.
    assert found.gain == pytest.approx(0.05 * 0.95 / 200 / 5e-5)
    unknown = Pooled.of([known, cell(0, 5, rate=1e-4)])
    assert (unknown.estimate, unknown.estimate_interval, unknown.gain) == (None, None, None)
    nothing = Pooled.of([replace(known, estimate=0.0, estimate_error=0.0)])
    assert nothing.estimate_interval == wilson_interval(0, 100)


def test_differences_of_shares():
    # Newcombe (1998), table II (a): 56/70 against 48/80 gives 0.0524 to 0.3339 by method 10.
    low, high = difference_interval(Count(count=48, total=80), Count(count=56, total=70))
    assert [low, high] == pytest.approx([0.0524, 0.3339], abs=1e-4)
    nothing = Count(count=0, total=0)
    assert difference_interval(nothing, Count(count=1, total=1)) == (-1.0, 1.0)
    low, high = difference_interval(Count(count=0, total=10), Count(count=0, total=10))
    assert low == -high


def test_verdicts_say_when_they_cannot_tell():
    published = Count(count=370, total=8000)
    assert verdict(Count(count=360, total=8000), published) == Verdict.AGREES
    assert verdict(Count(count=500, total=8000), published) == Verdict.HIGHER
    assert verdict(Count(count=100, total=8000), published) == Verdict.LOWER
    assert verdict(Count(count=0, total=8), published) == Verdict.UNCLEAR
