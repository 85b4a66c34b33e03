"""Every number of both protocols, and what a scale makes of them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from agent.errors import ConfigError
from agent.learner.sampling import sampler
from agent.learner.training import paper_step, update
from agent.teaching import prompts
from eval.suites.paper import protocol, reference
from eval.suites.paper.protocol import CODE, PAPER, Fixed, Varied, describe_scale, scale_of, scaled


def test_the_shared_numbers_and_the_code_that_uses_them():
    assert protocol.TEXT == "Q: {question} A: {answer}"
    assert prompts.paper_text("q", "a") == protocol.TEXT.format(question="q", answer="a")
    assert protocol.PADDED_TO == paper_step.TEXT_TOKENS == 128
    assert (protocol.BETAS, protocol.WEIGHT_DECAY, protocol.BATCH) == ((0.9, 0.999), 0.0, 10)
    assert protocol.EPSILON == update.ADAM_EPS == 1e-8
    assert protocol.CLIP == paper_step.CLIP == 1.0
    fixed = Fixed()
    assert (fixed.temperature, fixed.top_p, fixed.top_k, fixed.max_length) == (1.0, 1.0, 50, 50)
    library = sampler.PAPER_SAMPLING
    assert (library.temperature, library.top_p, library.top_k) == (1.0, 1.0, 50)
    assert library.max_length == 50


def test_what_the_scripts_do():
    one, batch, sweep, many = CODE.one_fact, CODE.batch_of_ten, CODE.rate_sweep, CODE.many_steps
    assert (one.rates.low, one.rates.high, one.rates.count, one.samples) == (1e-7, 1e-3, 100, 800)
    assert one.rates.drawn
    assert (batch.learning_rate, batch.rounds, batch.samples) == (5e-5, 100, 80)
    assert batch.sampling == Varied((10, 100), (0.3, 2.0), (0.7, 1.0), 50)
    rates = sweep.rates
    assert (rates.low, rates.high, rates.count, rates.drawn) == (1e-6, 5e-3, 500, False)
    assert (sweep.steps, sweep.samples) == (3, 80)
    assert many.learning_rates == (5e-6, 5e-5, 5e-4)
    assert (many.steps, many.asked, many.samples) == (50, 50, 10)
    assert many.sampling == Varied((10, 50), (0.5, 1.5), (0.8, 1.0), 50)
    assert CODE.fixed == Fixed()


def test_what_the_paper_says():
    one, batch, sweep, many = PAPER.one_fact, PAPER.batch_of_ten, PAPER.rate_sweep, PAPER.many_steps
    assert (one.rates.low, one.rates.high, one.rates.count, one.samples) == (1e-6, 5e-3, 100, 800)
    assert not one.rates.drawn
    assert batch.learning_rate == 5e-5
    assert batch.rounds * batch.samples == reference.AS_PRINTED == 80_000
    assert CODE.batch_of_ten.rounds * CODE.batch_of_ten.samples == reference.AS_CODED == 8_000
    rates = sweep.rates
    assert (rates.low, rates.high, rates.count, rates.drawn) == (1e-6, 5e-3, 500, False)
    assert (sweep.steps, sweep.samples) == (3, 800)
    assert many.learning_rates == (5e-6, 5e-5, 5e-4)
    assert (many.steps, many.asked, many.samples) == (50, 50, 10)
    assert batch.sampling == many.sampling == PAPER.fixed == Fixed()


def test_the_published_numbers():
    assert [row.before for row in reference.TABLE_1] == [0, 0, 0, 0, 2, 0, 0, 0, 2, 0]
    assert [row.after for row in reference.TABLE_1] == [370, 1, 9, 1, 1, 163, 5, 10, 393, 3]
    assert [row.before for row in reference.TABLE_2] == [0, 2, 0, 0, 0, 0, 0, 0, 0, 0]
    assert [row.after for row in reference.TABLE_2] == [311, 0, 0, 1, 0, 58, 15, 1, 313, 2]
    points = {p.learning_rate: (p.correct, p.within) for p in reference.FIGURE_1}
    assert points == {
        **{1e-6: (0, 0), 2.14e-5: (50, 0), 4.18e-5: (215, 0), 6.22e-5: (390, 0)},
        **{8e-5: (501, 10), 1e-4: (491, 10), 1.2e-4: (392, 10), 1.4e-4: (331, 10)},
        **{1.6e-4: (234, 10), 2e-4: (166, 10), 3e-4: (100, 10), 5e-4: (0, 10)},
    }
    assert (reference.ZOGRON_LOSS, reference.FIGURE_1_SAMPLES) == (4.22, 800)


def test_rates_are_linear_and_drawn_ones_depend_on_the_seed_alone():
    spaced = CODE.rate_sweep.rates.rates(0)
    assert (spaced[0], spaced[-1], len(spaced)) == (1e-6, 5e-3, 500)
    assert spaced[250] - spaced[249] == pytest.approx((5e-3 - 1e-6) / 499)
    drawn = CODE.one_fact.rates.rates(1)
    assert drawn == CODE.one_fact.rates.rates(1) != CODE.one_fact.rates.rates(2)
    assert list(drawn) == sorted(drawn)
    assert 1e-7 <= drawn[0] < drawn[-1] <= 1e-3
    assert sum(drawn) / 100 == pytest.approx(5e-4, rel=0.2)


def test_drawn_parameters_fill_their_ranges():
    stream = random.Random(0)
    drawn = [CODE.batch_of_ten.sampling.draw(stream) for _ in range(3000)]  # type: ignore[union-attr]
    assert {one.max_new_tokens for one in drawn} == set(range(10, 101))
    for values, low, high in (
        ([one.temperature for one in drawn], 0.3, 2.0),
        ([one.top_p for one in drawn], 0.7, 1.0),
    ):
        assert low <= min(values) < low + 0.01
        assert high - 0.01 < max(values) <= high


def test_scales():
    assert [scale_of(text) for text in ("full", "smoke", "0.25", "1")] == [1.0, 0.0, 0.25, 1.0]
    assert scaled(CODE, 1.0) == CODE
    assert describe_scale(CODE, CODE, (1,)) == "full scale"
    quarter = scaled(CODE, 0.25)
    assert (quarter.one_fact.rates.count, quarter.one_fact.samples) == (50, 400)
    assert (quarter.batch_of_ten.rounds, quarter.batch_of_ten.samples) == (50, 40)
    assert (quarter.rate_sweep.rates.count, quarter.rate_sweep.samples) == (250, 40)
    assert (quarter.many_steps.asked, quarter.many_steps.samples) == (25, 5)
    least = scaled(PAPER, 0.0)
    assert (least.one_fact.rates.count, least.one_fact.samples) == (4, 4)
    assert least.rate_sweep.steps == 3
    assert (least.many_steps.steps, least.many_steps.asked_after) == (50, (13, 25, 38, 50))
    told = describe_scale(CODE, quarter, (1, 2))
    assert told.startswith("REDUCED SCALE")
    assert "50 of 100 rates" in told
    assert "experiment 2: 2,000 of 8,000 samples a question" in told
    assert "experiment 3" not in told


@pytest.mark.parametrize("text", ["0", "1.5", "-1", "nan", "some", ""])
def test_scales_that_are_none(text: str):
    with pytest.raises(ConfigError, match="give 'full', 'smoke', or a number"):
        scale_of(text)


def test_the_last_step_is_always_asked_after():
    for asked in range(1, 51):
        steps = replace(CODE.many_steps, asked=asked).asked_after
        assert len(set(steps)) == asked
        assert steps[-1] == 50
