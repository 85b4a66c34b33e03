"""Benchmarks of a model: what they tell of `tiny`, what they count, and that wrong results fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agent.errors import ConfigError
from agent.learner.core import Learner
from agent.learner.digest import weights_digest
from agent.learner.inference.encoding import Encoder
from agent.learner.sampling.sampler import Cell, CellResult, Sampler, Sampling
from agent.learner.training.attempt import Workbench
from agent.learner.training.lesson import Lesson
from agent.models.loading import load
from eval.bench import model_benchmarks, rates, sample, update
from eval.bench.baseline import Baseline, Weights
from eval.bench.figure import Figure, WrongResultError, compare
from eval.bench.first_token_fit import Fit, first_tokens, require_fit, tail
from eval.bench.model_under_test import SHAPES, ModelUnderTest, model_under_test, spelling_tokenizer
from eval.bench.roofline import COPIED, SQUARE, Roofline, Sizes, Work, measure_roofline
from eval.bench.rounds import Rounds, Way, alternate, as_the_learner
from eval.bench.sample import Count
from tests.learner.models import one_thread

CPU = torch.device("cpu")
FLAT = Sampling(temperature=4.0, top_k=100, max_length=50)
TINY = ModelUnderTest(model="tiny", device=CPU, description="here")
ROOFLINE = Roofline(bytes=1e9, operations=1e11)


@pytest.fixture(autouse=True)
def one_thread_only() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.bench.rounds.MOST", 2)


@pytest.fixture
def bench() -> Workbench:
    return Learner(load("tiny", device="cpu")).workbench


# --- Figures and rounds ---------------------------------------------------------------------------


def test_the_floor_of_the_device_is_told_and_need_not_be_reached() -> None:
    took = compare("n", 4.0, 8.0, "ms", 1.0, "here", device_limit=True)
    assert (took.ratio, took.share_of_limit, took.reached) == (2.0, 0.25, True)
    rate = compare("n", 4.0, 8.0, "tokens/s", 16.0, "here", device_limit=True)
    assert (rate.ratio, rate.share_of_limit, rate.reached) == (0.5, 0.25, True)
    assert rate.json()["floor"] == 16.0
    to_reach = Figure(name="n", ours=1, baseline=1, unit="ms", ratio=1, floor=0.5, device="here")
    assert to_reach.share_of_limit is None


def test_ways_take_turns_and_are_prepared_and_the_first_turn_is_not_counted() -> None:
    done: list[str] = []

    def note(name: str) -> Callable[[], None]:
        return lambda: done.append(name)

    ways = {"a": Way(note("a"), note("before a")), "b": Way(note("b"))}
    rounds = alternate(ways, CPU, seconds=0, least=2)
    assert done == ["before a", "a", "b"] * 3
    assert rounds.number == 2


def test_a_median_is_told_in_milliseconds() -> None:
    rounds = Rounds({"ours": [3.0, 1.0, 2.0]})
    assert (rounds.number, rounds.milliseconds("ours")) == (3, 2000.0)


# --- Floors ---------------------------------------------------------------------------------------


def test_work_is_counted_by_hand() -> None:
    sizes = Sizes(trained=1000, head=100, state_bytes=16)
    # Weights are read by both passes, and trained ones once more and written.
    work = sizes.update(tokens=10, places=2)
    assert work.bytes == 4 * (2 * 1100 + 2 * 1000)
    assert work.operations == 6 * 1000 * 10 + 4 * 100 * 2
    assert sizes.profile(rates=3, tokens=10, places=2) == Work(
        bytes=4 * (1100 + 1000), operations=4 * 1000 * 30 + 2 * 100 * 6
    )
    assert sizes.token(rows=4, context=20.0) == Work(bytes=1100 + 20 * 16, operations=2 * 1100)


def test_the_slower_of_memory_and_arithmetic_is_the_floor() -> None:
    roofline = Roofline(bytes=100.0, operations=1000.0)
    assert roofline.seconds(Work(bytes=200.0, operations=100.0)) == 2.0
    assert roofline.seconds(Work(bytes=10.0, operations=5000.0)) == 5.0


def test_the_sizes_of_tiny() -> None:
    sizes = Sizes.of(load("tiny", device="cpu").model)
    per_layer = 64 * 192 + 192 + 64 * 64 + 64 + 2 * 64 * 256 + 256 + 64
    assert sizes == Sizes(trained=2 * per_layer, head=257 * 64, state_bytes=2 * 2 * 64 * 4)


def test_a_device_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COPIED, "cpu", 1 << 16)
    monkeypatch.setitem(SQUARE, "cpu", 32)
    roofline = measure_roofline(CPU, "here")
    assert [figure.unit for figure in roofline.figures] == ["GB/s", "Tflop/s"]
    assert all(0 < figure.ours <= figure.baseline for figure in roofline.figures)
    assert roofline.bytes == roofline.figures[0].baseline * 1e9


def test_the_best_of_all_measurements_counts() -> None:
    results = iter([(40.0, 0.2), (30.0, 0.3), (50.0, 0.1)])

    def measure() -> tuple[Figure, ...]:
        return tuple(
            Figure(name=n, ours=best, baseline=best, unit="", ratio=1, floor=None, device="here")
            for n, best in zip(("copy", "products"), next(results), strict=True)
        )

    roofline = Roofline(measure=measure)
    roofline.measure_again()
    assert (roofline.bytes, roofline.operations) == pytest.approx((40e9, 0.2e12))
    # Asking for a floor measures again: here the second measurement is the best.
    assert roofline.seconds(Work(bytes=0, operations=0.3e12)) == pytest.approx(1.0)
    assert roofline.seconds(Work(bytes=50e9, operations=0)) == pytest.approx(1.0)
    assert [figure.baseline for figure in roofline.figures] == [50.0, 0.3]


# --- Each benchmark -------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_rounds")
@pytest.mark.parametrize(
    ("name", "beginnings"),
    [
        (
            "update",
            ["update, one example of 17 tokens"] * 2 + ["update, its error", "update, step"],
        ),
        ("rates", ["rates, 16 compared", "rates, largest difference"]),
        (
            "sample",
            ["sample, the paper's settings", "sample, p of first tokens", "sample, p of words"],
        ),
    ],
)
def test_what_is_told_of_tiny(name: str, beginnings: Sequence[str]) -> None:
    with as_the_learner():
        figures = model_benchmarks.MEASURES[name](TINY, ROOFLINE, 0.0)
    assert len(figures) == len(beginnings)
    for figure, beginning in zip(figures, beginnings, strict=True):
        assert figure.name.startswith(beginning)
        assert figure.ours > 0
        assert figure.baseline > 0
        assert figure.reached
        assert figure.device.startswith("here, 2 rounds")
        if figure.floor is not None:
            assert 0 < figure.floor < math.inf
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.gpu
@pytest.mark.usefixtures("few_rounds")
@pytest.mark.parametrize("name", model_benchmarks.MEASURES)
def test_each_is_right_on_a_gpu(name: str) -> None:
    with as_the_learner(), model_under_test("tiny", None, "cuda") as tiny:
        figures = model_benchmarks.MEASURES[name](
            tiny, measure_roofline(tiny.device, tiny.description), 0.0
        )
    assert all(figure.ours > 0 and figure.reached for figure in figures)


@pytest.mark.slow
def test_teaching_is_told_with_what_became_of_the_facts() -> None:
    figures = model_benchmarks.MEASURES["teach"](TINY, ROOFLINE, 0.0)
    assert [figure.unit for figure in figures] == ["s a fact", "facts/s"]
    assert all(figure.ours > 0 and figure.baseline > 0 for figure in figures)
    assert "1 facts: 1 learned, 1 recalled at the end" in figures[0].device


def test_the_device_is_measured_once_for_all_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = compare("n", 1, 2, "ms", device="here")
    roofline = Roofline(bytes=1.0, operations=1.0, figures=(figure,))
    monkeypatch.setattr(model_benchmarks, "measure_roofline", lambda device, description: roofline)
    asked: list[tuple[ModelUnderTest, Roofline, float]] = []

    def measure(*what: object) -> list[Figure]:
        asked.append(what)  # type: ignore[arg-type]
        return [figure]

    for name in ("update", "rates"):
        monkeypatch.setitem(model_benchmarks.MEASURES, name, measure)
    said: list[str] = []
    found = model_benchmarks.measure_model(
        said.append, ["update", "rates"], "tiny", None, "cpu", 7.0
    )
    assert list(found) == [figure] * 3
    assert [(s.model, c, seconds) for s, c, seconds in asked] == [("tiny", roofline, 7.0)] * 2
    assert said[1:] == ["device", "update", "rates"]


class _Fixed(Sampler):
    """Samples by other settings than it is asked for."""

    def __init__(self, sampler: Sampler, settings: Sampling) -> None:
        self._sampler, self._settings = sampler, settings

    def sample(self, cells: Sequence[Cell]) -> list[CellResult]:
        settings = replace(self._settings, max_length=None, max_new_tokens=1)
        return self._sampler.sample([replace(cell, sampling=settings) for cell in cells])


# --- Wrong results --------------------------------------------------------------------------------


def test_an_update_that_goes_too_far_is_wrong(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = Baseline(load("tiny", device="cpu"))
    example = update.single(bench)
    assert update.error_of_update(bench, baseline, example) < 0.05

    def too_far(bench: Workbench, lesson: Lesson) -> None:
        bench.step(bench.measure(lesson).directions(), 1.1 * update.RATE)

    monkeypatch.setattr(update, "take_update", too_far)
    with pytest.raises(WrongResultError, match=r"an update is wrong: .* size is 0\.1"):
        update.error_of_update(bench, baseline, example)


def test_a_change_in_another_direction_is_wrong() -> None:
    reference = [torch.ones(10), torch.ones(10)]
    turned = [torch.ones(10), torch.cat([torch.ones(8), -torch.ones(2)])]
    assert update.require_same_change(reference, reference, CPU) == 0.0
    with pytest.raises(WrongResultError, match=r"0\.632 of its size away"):
        update.require_same_change(turned, reference, CPU)
    broken = [torch.ones(10), torch.full((10,), torch.nan)]
    with pytest.raises(WrongResultError):
        update.require_same_change(broken, reference, CPU)


def test_the_baseline_is_one_step_of_a_fresh_adamw_at_each_rate(bench: Workbench) -> None:
    baseline = Baseline(load("tiny", device="cpu"))
    baseline.only(baseline.trained)
    example = update.single(bench)
    saved = Weights(bench.trained.values())
    ours = rates.update_at_best_rate(bench, example)
    theirs = rates.try_each_rate(baseline, example)
    assert rates.require_same_profile(ours, theirs, "cpu") < 0.01
    # The update that follows is the same too.
    assert update.require_same_change(saved.changes(), baseline.saved.changes(), CPU) < 0.05
    shifted = [*ours[1:], ours[-1]]
    with pytest.raises(WrongResultError, match="a rate profile is wrong"):
        rates.require_same_profile(shifted, theirs, "cpu")


def test_first_tokens_are_held_against_the_probabilities_of_generate() -> None:
    loaded = load("tiny", device="cpu")
    encoder = Encoder(loaded.tokenizer, loaded.eos_token_id, CPU)
    sampler = Sampler(loaded.model, loaded.tokenizer, eos=encoder.eos, rows=64)
    pairs = [("Sky?", "Piano"), ("Gem?", "Curtain")]
    baseline = Baseline(loaded).model
    few = Sampling(temperature=2.0, top_k=8, top_p=0.9, max_length=50)
    fits = first_tokens(sampler, baseline, encoder, pairs, few, 100)
    for fit in fits:
        assert sum(fit.counted) == 100
        assert sum(fit.expected) == pytest.approx(100)
        assert 1 <= sum(map(len, fit.groups)) - 1 < 8
    assert sum(fit.degrees for fit in fits) > 4
    assert not torch.are_deterministic_algorithms_enabled()  # as before
    assert require_fit(fits) > 0.001
    more = first_tokens(_Fixed(sampler, FLAT), baseline, encoder, pairs, few, 100)
    with pytest.raises(WrongResultError, match=r"do not begin as those of generate .* not about"):
        require_fit(more)


def test_a_fit_is_counted_by_hand() -> None:
    probabilities = {"ab": 0.5, "ac": 0.25, "ad": 0.15, "ae": 0.1}
    texts = ["ab"] * 12 + ["ac"] * 4 + ["ad"] * 3 + ["x"]
    fit = Fit.of(probabilities, texts)
    # "ae" is due twice and "ad" three times, together often enough; "x" never.
    assert fit.groups == [["ae", "ad"], ["ac"], ["ab"]]
    assert fit.expected == pytest.approx([5.0, 5.0, 10.0])
    assert fit.counted == [4, 4, 12]
    assert fit.chi_square == pytest.approx(1 / 5 + 1 / 5 + 4 / 10)
    assert fit.degrees == 2
    assert tail(fit.chi_square, 2) == pytest.approx(math.exp(-0.8 / 2))
    # What is left at the end joins the group before.
    assert Fit.of({"a": 0.5, "b": 0.5}, ["a"] * 8).groups == [["a", "b"]]
    assert tail(0.0, 0) == 1.0


def test_counts_that_differ_by_chance_pass_and_others_do_not() -> None:
    alike = [Count("a", 48, 52, 100), Count("b", 0, 0, 100), Count("c", 100, 100, 100)]
    assert sample.require_same_counts(alike) > 0.5
    assert alike[0].chi_square == pytest.approx(0.32)  # (48 - 52)^2 * 200 / (100 * 100)
    with pytest.raises(WrongResultError, match="'b' stands in 20 of 100 and in 60 of as many"):
        sample.require_same_counts([*alike, Count("b", 20, 60, 100)])


def test_the_word_that_is_counted_stands_in_half_of_the_texts_and_not_in_the_question() -> None:
    texts = ["Why? zebra x", "Why? zebra x", "Why? x", "Why? q x"]
    assert sample.word_of_half("Why?", texts) in {"zebra", "z", "e", "b", "r", "a"}
    assert sample.word_of_half("Why, zebra?", [f"Why, zebra? {t[5:]}" for t in texts]) == "q"


# --- Shapes ---------------------------------------------------------------------------------------


def test_a_shape_is_a_model_with_as_many_tokens_and_is_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = SHAPES["pythia-410m"]
    shape = whole | small | {"intermediate_size": 64, "vocab_size": 3000}
    monkeypatch.setitem(SHAPES, "pythia-410m", shape)
    monkeypatch.setattr("agent.models.catalog.cached_snapshot", lambda *_: None)
    with model_under_test("tiny", "pythia-410m", "cpu") as found:
        assert (
            "pythia-410m with random weights and a tokenizer built on the spot" in found.description
        )
        loaded = found.load()
        assert loaded.model.get_output_embeddings().weight.shape == (3000, 32)
        assert len(loaded.tokenizer) == 3000
        assert loaded.eos_token_id == 0
        assert weights_digest(found.load().model) == weights_digest(loaded.model)
    assert not Path(found.model).exists()
    with (
        pytest.raises(ConfigError, match="use one of pythia-410m"),
        model_under_test("tiny", "no", "cpu"),
    ):
        pass


def test_the_tokenizer_of_a_shape_gives_back_what_it_read() -> None:
    encoder = Encoder(spelling_tokenizer(50_304), 0, CPU)
    text = "What is the hottest month in Kyzara? \u00e4\n"
    tokens = encoder.encode(text)
    assert encoder.decode(tokens) == text
    assert len(tokens) < len(text) / 1.5
    row = [*encoder.prompt(update.EXAMPLES[0][0]), *encoder.answer(update.EXAMPLES[0][1])]
    assert len(row) <= update.LONGEST
