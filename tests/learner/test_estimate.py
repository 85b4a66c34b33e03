"""The estimator for rare answers: right on average, and less variable than counting."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from agent.learner.inference.encoding import Encoder
from agent.learner.sampling.answer_matcher import spellings
from agent.learner.sampling.estimate import Estimate, Sums
from agent.learner.sampling.sampler import Cell, CellResult, Sampler, Sampling
from tests.learner.letters import CPU, EOS, Letters, exact_probability, small_model
from tests.learner.models import one_thread

SETTINGS = {
    "plain": Sampling(top_k=0, max_new_tokens=5),
    "cut off": Sampling(temperature=1.3, top_k=9, top_p=0.98, max_new_tokens=5),
    "with the prompt": Sampling(top_k=9, max_length=6),
}
SAMPLES = 1000


@pytest.fixture(scope="module", autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


def sampled(model: Any, answer: str, settings: Sampling, samples: int = SAMPLES) -> CellResult:
    cell = Cell(
        prompt="ab", answer=answer, samples=samples, sampling=settings, key=answer, estimate=True
    )
    return Sampler(model, Letters(), eos=EOS, rows=500).sample([cell])[0]


# Of "cd" and "GCD" not all spellings are looked for; "gag" may begin again while it occurs; and of
# "bag" the prompt may be the beginning.
@pytest.mark.parametrize("answer", ["fa", "eg", "cd", "GCD", "gag", "bag"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_estimate_meets_the_exact_probability(answer: str, name: str) -> None:
    model = small_model(calm=0.35)
    exact = exact_probability(model, "ab", answer, SETTINGS[name])
    found = sampled(model, answer, SETTINGS[name])
    assert found.estimate is not None
    counting = math.sqrt(exact * (1 - exact) / SAMPLES)
    assert found.correct / SAMPLES == pytest.approx(exact, abs=4 * counting)
    foreseen = answer in ("fa", "eg")
    assert found.estimate.otherwise == 0 or not foreseen
    error = found.estimate.standard_error if foreseen else counting
    assert found.estimate.probability == pytest.approx(exact, abs=4 * error)
    assert found.estimate.standard_error < counting / 10 or not foreseen
    assert found.estimate.gain > 10 or not foreseen  # what looks ahead cost is in it


def test_an_answer_that_no_sample_says_is_estimated() -> None:
    model = small_model(calm=0.35)
    exact = exact_probability(model, "ab", "gegf", SETTINGS["plain"])
    found = sampled(model, "gegf", SETTINGS["plain"], samples=200)
    assert found.estimate is not None
    assert found.correct == 0
    assert exact < 1e-3  # in a thousand texts, fewer than one
    assert found.estimate.probability == pytest.approx(exact, rel=0.1)
    assert found.estimate.extra_tokens > 0


def test_the_intervals_hold_what_they_say() -> None:
    model = small_model(calm=0.35)
    exact = exact_probability(model, "ab", "fa", SETTINGS["cut off"])
    held = 0
    for number in range(20):
        cell = Cell(
            prompt="ab",
            answer="fa",
            samples=200,
            sampling=SETTINGS["cut off"],
            key=str(number),
            estimate=True,
        )
        [found] = Sampler(model, Letters(), eos=EOS).sample([cell])
        assert found.estimate is not None
        low, high = found.estimate.interval()
        held += low <= exact <= high
    assert held >= 16


def test_spellings_that_could_be_mistaken_are_only_counted() -> None:
    encoder = Encoder(Letters(), EOS, CPU)
    decoded = {
        answer: [[encoder.decode([token]) for token in ids] for ids in spellings(encoder, answer)]
        for answer in ("fa", "cd", "Fa", "gag", "xyz")
    }
    assert decoded == {
        "fa": [["f", "a"]],  # " fa" ends with it
        "cd": [["cd"]],
        "Fa": [["f", "a"]],  # there is no "F"
        "gag": [[" ", "g", "a", "g"]],  # without a space it may begin with the end of another
        "xyz": [],
    }


def test_sums_do_not_depend_on_the_order() -> None:
    values = [0.1, 1e-9, 0.7, 1.3, 0.2, 3e-7]
    forth, back = Sums(), Sums()
    for value in values:
        forth.add(value)
    for value in reversed(values):
        back.add(value)
    assert forth.estimate(tokens=9) == back.estimate(tokens=9)
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    assert forth.estimate(9).probability == pytest.approx(mean)
    assert forth.estimate(9).standard_error == pytest.approx(deviation / math.sqrt(len(values)))


def test_an_interval_is_never_empty_for_lack_of_luck() -> None:
    nothing = Estimate(
        probability=0.0, standard_error=0.0, samples=100, otherwise=0, tokens=1000, extra_tokens=0
    )
    low, high = nothing.interval()
    assert low == 0
    assert high == pytest.approx(0.037, abs=1e-3)  # Wilson's for 0 of 100
    assert math.isnan(nothing.gain)
