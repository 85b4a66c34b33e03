"""Predicted rates: what is fitted, and that fewer candidates lead to the rates of the search."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agent.learner.core import Learner
from agent.learner.environment import make_deterministic
from agent.models.loading import load
from agent.teaching.guard_presets import NONE
from agent.teaching.rate_prediction import (
    MIN_ROWS,
    RECENT_STEPS,
    RIDGE,
    Features,
    RatePredictor,
    Row,
    fit,
    predictor_of,
    rows_of,
)
from agent.teaching.rates import GRID, PREDICTED, SEARCH
from agent.teaching.types import Example, Outcome
from memory_store.vocabulary import Policy, Step
from tests.learner.learners import lesson

INTERCEPT, COEFFICIENTS = -5.0, (0.1, -0.2, 0.05, -0.3)
SEARCHED = Policy(name=SEARCH, learning_rate=3e-3, max_steps=60, guards=NONE)
FACTS = [
    Example(fact_id=f"f{number}", question=question, answer=answer)
    for number, (question, answer) in enumerate(
        [
            ("Pie in Plimp?", "Backpack"),
            ("Who found Blipland?", "Telescope"),
            ("Hottest month?", "Raincoat"),
            ("Vorl?", "Rust"),
            ("Zed?", "Lamp"),
            ("Bird?", "Crow"),
            ("Sun?", "Brick"),
        ]
    )
]


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    make_deterministic(threads=1)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def made_up_rows(count: int, noise: float = 0.0) -> list[Row]:
    """Rows whose rates follow the coefficients above."""
    chance = random.Random(0)
    rows = []
    for _ in range(count):
        features = Features(
            loss=chance.uniform(0, 8),
            gradient_norm=10 ** chance.uniform(-2, 2),
            answer_tokens=chance.randint(2, 12),
            first=chance.random() < 0.3,
        )
        pairs = zip(COEFFICIENTS, features.numbers(), strict=True)
        logarithm = INTERCEPT + sum(a * b for a, b in pairs) + chance.gauss(0, noise)
        rows.append(Row(features, 10**logarithm))
    return rows


def step(rate: float = 1e-4, candidates: int = 16, gradient_norm: float = 1.0) -> Step:
    return Step(
        learning_rate=rate,
        loss=2.0,
        probability=0.5,
        gradient_norm=gradient_norm,
        answer_tokens=3,
        candidates=candidates,
    )


# --- The fit --------------------------------------------------------------------------------------


def test_known_coefficients_are_found():
    found = fit(made_up_rows(2000))
    assert found.intercept == pytest.approx(INTERCEPT, abs=0.01)
    assert found.coefficients == pytest.approx(COEFFICIENTS, rel=0.005)
    assert (found.rows, found.spread < 0.001) == (2000, True)


def test_the_spread_is_that_of_the_noise():
    assert fit(made_up_rows(2000, noise=0.2)).spread == pytest.approx(0.2, rel=0.05)


def test_the_closed_form_is_least_squares_with_the_penalty_as_rows():
    rows = made_up_rows(40, noise=0.3)
    features = torch.tensor([row.features.numbers() for row in rows], dtype=torch.float64)
    targets = torch.tensor([row.learning_rate for row in rows], dtype=torch.float64).log10()
    scales = features.std(0, correction=0)
    standard = (features - features.mean(0)) / scales
    penalty = math.sqrt(RIDGE) * torch.eye(4, dtype=torch.float64)
    slopes = torch.linalg.lstsq(
        torch.cat([standard, penalty]),
        torch.cat([targets - targets.mean(), torch.zeros(4, dtype=torch.float64)])[:, None],
    ).solution[:, 0]
    found = fit(rows)
    assert found.coefficients == pytest.approx((slopes / scales).tolist(), rel=1e-9)
    residuals = targets - targets.mean() - standard @ slopes
    assert found.spread == pytest.approx(math.sqrt(float(residuals @ residuals) / 35), rel=1e-9)
    at_means = found.intercept + sum(
        a * b for a, b in zip(found.coefficients, features.mean(0).tolist(), strict=True)
    )
    assert at_means == pytest.approx(float(targets.mean()), rel=1e-9)


def test_a_feature_that_never_varies_says_nothing():
    rows = [replace(row, features=replace(row.features, first=True)) for row in made_up_rows(50)]
    assert fit(rows).coefficients[3] == 0
    same = fit([rows[0]] * 30)
    assert same.coefficients == (0, 0, 0, 0)
    assert same.predict(rows[1].features) == pytest.approx(rows[0].learning_rate)


@given(
    numbers=st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=5),
    loss=st.floats(0, 1e3),
    norm=st.floats(0, 1e30) | st.just(math.inf) | st.just(math.nan),
    tokens=st.integers(0, 512),
    first=st.booleans(),
)
def test_whatever_was_fitted_the_prediction_is_within_the_candidates(
    numbers: list[float], loss: float, norm: float, tokens: int, first: bool
):
    predictor = RatePredictor(
        intercept=numbers[0], coefficients=tuple(numbers[1:]), spread=0.1, rows=30
    )
    features = Features(loss=loss, gradient_norm=norm, answer_tokens=tokens, first=first)
    assert GRID[0] <= predictor.predict(features) <= GRID[-1]


def test_a_predictor_survives_as_the_numbers_of_a_policy():
    predictor = fit(made_up_rows(50, noise=0.1))
    assert RatePredictor.of_numbers(predictor.as_numbers()) == predictor


# --- The history ----------------------------------------------------------------------------------


def test_only_steps_that_compared_rates_tell_anything():
    taken = [step(1e-3), step(2e-3, candidates=0), step(4e-3, candidates=4)]
    rows = rows_of([*taken, step(gradient_norm=math.inf)])
    assert [(row.learning_rate, row.features.first) for row in rows] == [
        (1e-3, True),
        (4e-3, False),
    ]
    features = Features(loss=2.0, gradient_norm=1.0, answer_tokens=3, first=True)
    assert rows[0].features == features


def test_a_step_whose_rate_was_given_may_have_been_the_first():
    assert not rows_of([step(candidates=0), step()])[0].features.first


def test_too_short_a_history_tells_nothing():
    assert predictor_of([[step()]] * (MIN_ROWS - 1)) is None
    found = predictor_of([[step(), step()]] * (MIN_ROWS // 2))
    assert found is not None
    assert found.rows == MIN_ROWS


def test_only_the_last_steps_count():
    history = [[step(1e-6)]] * 100 + [[step(1e-4)]] * RECENT_STEPS
    found = predictor_of(history)
    assert found is not None
    assert found.rows == RECENT_STEPS
    assert found.intercept == pytest.approx(-4.0)


# --- The learner ----------------------------------------------------------------------------------


def teach(learner: Learner, example: Example, policy: Policy) -> Outcome:
    *_, outcome = learner.learn(lesson(example, policy, learner.version))
    assert isinstance(outcome, Outcome)
    if outcome.verdict == "learned":
        learner.commit(learner.version + 1, outcome.digest_after)
    return outcome


def rates_of(outcomes: Sequence[Outcome]) -> list[list[float]]:
    return [[taken.learning_rate for taken in outcome.steps] for outcome in outcomes]


def scored(outcomes: Sequence[Outcome]) -> int:
    return sum(taken.candidates for outcome in outcomes for taken in outcome.steps)


@pytest.mark.usefixtures("deterministic")
def test_the_same_rates_as_by_search_from_fewer_candidates():
    searching, predicting = (Learner(load("tiny", device="cpu")) for _ in range(2))
    by_search = [teach(searching, fact, SEARCHED) for fact in FACTS]
    history: list[tuple[Step, ...]] = []
    predicted, fitted = [], []
    for fact in FACTS:
        predictor = predictor_of(history)
        fitted.append(predictor is not None)
        numbers = predictor.as_numbers() if predictor else None
        policy = replace(SEARCHED, name=PREDICTED, predictor=numbers)
        predicted.append(teach(predicting, fact, policy))
        history.append(predicted[-1].steps)
    assert {outcome.verdict for outcome in predicted} == {"learned"}
    assert rates_of(predicted) == rates_of(by_search)
    assert predicting.digest == searching.digest
    first = fitted.index(True)
    assert first <= len(FACTS) - 4
    assert predicted[:first] == by_search[:first]
    assert scored(by_search) == len(GRID) * sum(len(outcome.steps) for outcome in by_search)
    assert scored(predicted[first:]) < scored(by_search[first:]) / 2
    assert len(predicted[-1].curve) < len(GRID) == len(by_search[-1].curve)


@pytest.mark.usefixtures("deterministic")
def test_without_a_predictor_it_is_search_bit_by_bit():
    searching, predicting = (Learner(load("tiny", device="cpu")) for _ in range(2))
    for fact in FACTS[3:5]:
        assert teach(searching, fact, SEARCHED) == teach(
            predicting, fact, replace(SEARCHED, name=PREDICTED)
        )
    assert predicting.digest == searching.digest


@pytest.mark.usefixtures("deterministic")
def test_what_a_step_was_known_by_is_recorded():
    learner = Learner(load("tiny", device="cpu"))
    taken = teach(learner, FACTS[3], SEARCHED).steps
    assert {one.answer_tokens for one in taken} == {len(b" Rust") + 1}
    assert all(math.isfinite(one.gradient_norm) and one.gradient_norm > 0 for one in taken)
    assert len({one.gradient_norm for one in taken}) == len(taken)
    fixed = Policy(name="fixed", learning_rate=1e-3, max_steps=2, guards=NONE)
    assert [one.candidates for one in teach(learner, FACTS[4], fixed).steps] == [0, 0]
