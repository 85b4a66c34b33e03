"""The lesson: what one batched pass measures is what each row, alone and plainly, would give."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from agent.learner.engine.cuda_graphs import WIDTH, Runner
from agent.learner.engine.fused_layers import LONGEST, Operations, fuse, packs_texts
from agent.learner.engine.kernels import reference as plain_kernels
from agent.learner.inference.logits import logits_at
from agent.learner.training import lesson
from agent.learner.training.lesson import Lesson, LessonScores
from agent.learner.training.rate_sweep import rate_profile
from agent.learner.training.rows import NEIGHBOUR_WEIGHT, REHEARSAL_WEIGHT, TEXT_WEIGHT, Role, Row
from agent.learner.training.update import (
    adamw_directions,
    gradient,
    gradient_norm,
    trained_parameters,
)
from tests.learner.models import CPU, ENCODER, EOS, FAMILIES, RUNNER, one_thread, random_model

FACT = Row.answering(Role.FACT, ENCODER, "What is the hottest month in Kyzara?", "Raincoat")
REWORDED = Row.answering(Role.FACT, ENCODER, "hottest month Kyzara?", "Raincoat")
ASKED = Row.answering(Role.ASKED, ENCODER, "Sky?", "A piano")
REHEARSED = [
    Row.answering(Role.REHEARSED, ENCODER, "Gem?", "A curtain, and a rather long one"),
    Row.answering(Role.REHEARSED, ENCODER, "Who found Blipland?", "I"),
]
CONTROL = Row.answering(Role.CONTROL, ENCODER, "What is the hottest month in Ooblee?", "Raincoat")
NEIGHBOURS = [
    Row.answering(Role.NEIGHBOUR, ENCODER, "What is the hottest month in Zoosh?", "July"),
    Row.answering(Role.NEIGHBOUR, ENCODER, "Gem?", "No"),
]
TEXTS = [
    Row(
        Role.TEXT,
        ENCODER.encode(
            "Once upon a time there was a text that is longer than any other row of the lesson."
        ),
        (0, 5, 9),
    ),
    Row(Role.TEXT, ENCODER.encode("Another"), range(6)),
]
# Not in the order of their roles, which a lesson sorts them by.
ROWS = [*TEXTS, *NEIGHBOURS, CONTROL, *REHEARSED, FACT, ASKED, REWORDED]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(request.param)


@pytest.fixture
def base(model: Any) -> Any:
    """Another model of the same family, so that divergences are far from zero."""
    return random_model(model.config.model_type, seed=1)


def lesson_of(rows: list[Row], base: Any) -> Lesson:
    made = Lesson(rows, EOS, CPU, RUNNER)
    made.anchor(base)
    return made


def measure(rows: list[Row], model: Any, base: Any) -> LessonScores:
    return lesson_of(rows, base).measure(model, trained(model))


def trained(model: Any) -> list[Tensor]:
    return [weight.requires_grad_(True) for weight in trained_parameters(model).values()]


# --- The plain way: a row at a time, every place, straight from the definitions -------------------


def plain_log_probabilities(model: Any, row: Row) -> Tensor:
    """[T, V]."""
    log_probabilities: Tensor = model(torch.tensor([list(row.tokens)])).logits[0].log_softmax(-1)
    return log_probabilities


def plain_nats(model: Any, row: Row) -> Tensor:
    """[places]: of each next token."""
    log_probabilities = plain_log_probabilities(model, row)
    return torch.stack([-log_probabilities[place, row.tokens[place + 1]] for place in row.places])


def plain_divergence(model: Any, base: Any, row: Row) -> Tensor:
    """Mean over the row's places of KL(base || model); of neighbours the first is half of it."""
    ours, theirs = plain_log_probabilities(model, row), plain_log_probabilities(base, row)
    each = [(theirs[p].exp() * (theirs[p] - ours[p])).sum() for p in row.places]
    if row.role is Role.NEIGHBOUR and len(each) > 1:
        return (each[0] + torch.stack(each[1:]).mean()) / 2
    return torch.stack(each).mean()


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def plain_loss(model: Any, base: Any, rows: list[Row]) -> Tensor:
    of: dict[Role, list[Row]] = {role: [row for row in rows if row.role is role] for role in Role}
    loss = mean([plain_nats(model, row).mean() for row in of[Role.FACT]])
    if of[Role.REHEARSED]:
        rehearsed = [plain_nats(model, row).mean() for row in of[Role.REHEARSED]]
        loss = loss + REHEARSAL_WEIGHT * mean(rehearsed)
    for role, weight in ((Role.NEIGHBOUR, NEIGHBOUR_WEIGHT), (Role.TEXT, TEXT_WEIGHT)):
        if of[role]:
            loss = loss + weight * mean([plain_divergence(model, base, row) for row in of[role]])
    return loss


# --- Logits at some places ------------------------------------------------------------------------


def test_logits_at_some_places_are_those_of_the_plain_forward_pass(model: Any):
    input_ids = torch.randint(256, (3, 17), generator=torch.Generator().manual_seed(3))
    # Unsorted, one twice: any places may be asked for.
    rows, columns = torch.tensor([2, 0, 1, 1, 2]), torch.tensor([16, 0, 8, 8, 3])
    plain = model(input_ids).logits
    chosen = logits_at(model, input_ids, rows, columns)
    assert chosen.dtype is torch.float32
    torch.testing.assert_close(chosen, plain[rows, columns], rtol=1e-5, atol=1e-5)
    # The model is as it was: all places again.
    assert torch.equal(model(input_ids).logits, plain)


def test_a_pass_that_fails_leaves_the_model_as_it_was(model: Any):
    input_ids = torch.tensor([[1, 2, 3]])
    plain = model(input_ids).logits
    with pytest.raises(IndexError):
        logits_at(model, input_ids, torch.tensor([0]), torch.tensor([3]))
    assert torch.equal(model(input_ids).logits, plain)


# --- What is measured -----------------------------------------------------------------------------


def test_probabilities_are_those_of_each_row_alone(model: Any, base: Any):
    measured = measure(ROWS, model, base)
    for role in (Role.FACT, Role.ASKED, Role.REHEARSED, Role.CONTROL):
        alone = [(-plain_nats(model, row).sum()).exp().item() for row in ROWS if row.role is role]
        assert measured.probabilities[role] == pytest.approx(alone, rel=1e-4)
        assert measured.divergences[role] == []
    assert measured.asked == measured.probabilities[Role.ASKED][0]
    assert measured.reworded == measured.probabilities[Role.FACT][1]


def test_divergences_are_those_of_each_row_alone(model: Any, base: Any):
    measured = measure(ROWS, model, base)
    for role in (Role.NEIGHBOUR, Role.TEXT):
        alone = [plain_divergence(model, base, row).item() for row in ROWS if row.role is role]
        assert min(alone) > 0.01
        assert measured.divergences[role] == pytest.approx(alone, rel=1e-4)
        assert measured.probabilities[role] == []


def test_from_itself_a_model_does_not_diverge(model: Any):
    measured = measure(ROWS, model, model)
    for role in (Role.NEIGHBOUR, Role.TEXT):
        assert measured.divergences[role] == pytest.approx([0.0, 0.0], abs=1e-6)


SOME_ROWS = {
    "all": ROWS,
    "the fact alone": [FACT],
    "the fact in two forms": [FACT, REWORDED],
    "with older facts": [FACT, *REHEARSED],
    "with neighbours": [FACT, *NEIGHBOURS],
    "with texts": [FACT, *TEXTS],
    "what is only looked at": [FACT, ASKED, CONTROL],
}


@pytest.mark.parametrize("rows", SOME_ROWS.values(), ids=SOME_ROWS)
def test_the_loss_is_the_weighted_sum_of_the_means(model: Any, base: Any, rows: list[Row]):
    measured = measure(rows, model, base)
    assert measured.loss == pytest.approx(plain_loss(model, base, rows).item(), rel=1e-5)
    forms = [plain_nats(model, row).mean() for row in rows if row.role is Role.FACT]
    assert measured.fact_loss == pytest.approx(mean(forms).item(), rel=1e-5)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Directions are bare gradients, of which AdamW's would show the signs alone."""
    monkeypatch.setattr(lesson, "norm_and_directions", lambda g: (gradient_norm(g), g))


@pytest.mark.usefixtures("bare")
def test_the_gradient_is_that_of_the_loss_computed_row_by_row(model: Any, base: Any):
    descent = measure(ROWS, model, base).descent()
    expected = gradient(plain_loss(model, base, ROWS), trained(model))
    for name, ours, theirs in zip(
        trained_parameters(model), descent.directions, expected, strict=True
    ):
        assert theirs.abs().max() > 0, name
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5, msg=name)
    norm = torch.cat([theirs.flatten() for theirs in expected]).norm().item()
    assert descent.gradient_norm == pytest.approx(norm, rel=1e-5)


def test_steps_go_as_adamw_would(model: Any, base: Any, monkeypatch: pytest.MonkeyPatch):
    found = measure(ROWS, model, base).directions()
    with monkeypatch.context() as patched:
        patched.setattr(lesson, "norm_and_directions", lambda g: (gradient_norm(g), g))
        gradients = list(measure(ROWS, model, base).descent().directions)
    expected = adamw_directions(gradients)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("extra", [ASKED, CONTROL], ids=["asked", "control"])
def test_nothing_is_learned_from_what_is_only_looked_at(model: Any, base: Any, extra: Row):
    without = measure([FACT], model, base).directions()
    beside = measure([FACT, extra], model, base).directions()
    for ours, theirs in zip(beside, without, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_the_order_of_the_rows_matters_within_a_role_only(model: Any, base: Any):
    sorted_by_hand = sorted(ROWS, key=lambda row: row.role)
    some, others = (measure(rows, model, base) for rows in (ROWS, sorted_by_hand))
    assert some.loss == others.loss
    assert plain(some) == plain(others)


def plain(measured: LessonScores) -> tuple[dict[Role, list[float]], dict[Role, list[float]]]:
    return measured.probabilities, measured.divergences


def test_texts_in_a_batch_of_their_own_pad_nobody_and_change_nothing(model: Any, base: Any):
    short = [row for row in ROWS if row.role is not Role.TEXT]
    shapes: list[tuple[int, ...]] = []
    watching = model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    with_texts = measure(ROWS, model, base)
    watching.remove()
    of_short, of_texts = (max(len(row.tokens) for row in rows) for rows in (short, TEXTS))
    assert of_texts > of_short
    assert shapes == [(len(short), of_short), (len(TEXTS), of_texts)]

    without = measure(short, model, base)
    assert with_texts.probabilities == without.probabilities
    neighbours = without.divergences[Role.NEIGHBOUR]
    assert with_texts.divergences[Role.NEIGHBOUR] == pytest.approx(neighbours, rel=1e-6)


def test_what_fills_rows_up_does_not_matter(model: Any, base: Any):
    other = Lesson(ROWS, pad=65, device=CPU, runner=RUNNER)
    other.anchor(base)
    measured, padded_otherwise = measure(ROWS, model, base), other.measure(model, trained(model))
    assert measured.loss == padded_otherwise.loss
    assert plain(measured) == plain(padded_otherwise)


# --- A look ---------------------------------------------------------------------------------------


def test_a_look_gives_the_answers_by_role_and_row_and_nothing_of_the_rest(model: Any, base: Any):
    answering = [FACT, REWORDED, ASKED, *REHEARSED, CONTROL]
    alone = [-plain_nats(model, row).sum().item() for row in answering]
    assert lesson_of(ROWS, base).look(model, "model") == pytest.approx(alone, rel=1e-4)
    # Without a base model and without guarded rows too.
    unanchored = Lesson(answering, EOS, CPU, RUNNER)
    assert unanchored.look(model, "model") == pytest.approx(alone, rel=1e-4)


# --- The fact's own question, for the rate profile ------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "asked"),
    [
        ([row for row in ROWS if row is not ASKED], FACT),
        # Asked apart where another text is taught.
        (ROWS, ASKED),
    ],
    ids=["the fact's first form", "asked apart"],
)
def test_the_own_question_is_asked_as_often_as_wanted(
    model: Any, base: Any, rows: list[Row], asked: Row
):
    asking = lesson_of(rows, base)
    tokens, owners, columns, counted = asking.own_question(3)
    places = len(asked.places)
    assert asking.answer_tokens == places
    assert tokens.tolist() == [list(asked.tokens)] * 3
    assert owners.tolist() == [0] * places + [1] * places + [2] * places
    assert columns.tolist() == list(asked.places) * 3
    assert counted.tolist() == [1.0] * places

    expected = (-plain_nats(model, asked).sum()).exp().item()
    still = {name: torch.zeros_like(weight) for name, weight in trained_parameters(model).items()}
    points = rate_profile(model, asking, still, RUNNER, (1e-6, 1e-5, 1e-4))
    assert [point.probability for point in points] == pytest.approx([expected] * 3, rel=1e-4)


# --- Rounded up, as on a GPU ----------------------------------------------------------------------


class Rounding(Runner):
    """Pads as on a GPU, and runs plainly."""

    def rounded(self, size: int, unit: int) -> int:
        return Runner(torch.device("cuda")).rounded(size, unit)


def fused(model: Any) -> Any:
    """A copy whose attention takes texts end to end, where that can be."""
    names = ("rms_norm", "silu_product", "attention", "decode")
    made = copy.deepcopy(model)
    fuse(made, Operations(*(getattr(plain_kernels, name) for name in names)))
    assert packs_texts(made) == (model.config.model_type != "gpt2")
    assert not packs_texts(model)
    return made


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("packs", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("rows", SOME_ROWS.values(), ids=SOME_ROWS)
def test_what_rounds_sizes_up_changes_nothing(model: Any, base: Any, rows: list[Row], packs: bool):
    expected = measure(rows, model, base)
    if packs:
        model, base = fused(model), fused(base)
    padded = Lesson(rows, EOS, CPU, Rounding(CPU, packs=packs_texts(model)))
    padded.anchor(base)
    found = padded.measure(model, trained(model))
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert found.fact_loss == pytest.approx(expected.fact_loss, rel=1e-5)
    for role in Role:
        probabilities, divergences = expected.probabilities[role], expected.divergences[role]
        assert found.probabilities[role] == pytest.approx(probabilities, rel=1e-4)
        assert found.divergences[role] == pytest.approx(divergences, rel=1e-4)
    for ours, theirs in zip(found.directions(), expected.directions(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    probabilities = [p for role in expected.probabilities.values() for p in role]
    looked = [math.exp(log) for log in padded.look(model, "model")]
    assert looked == pytest.approx(probabilities, rel=1e-4)


def test_texts_too_long_for_fused_attention_are_not_packed(model: Any, base: Any):
    long = [*ROWS, Row.whole(Role.TEXT, [5] * (LONGEST + 1))]
    expected = measure(long, model, base)
    packing = Lesson(long, EOS, CPU, Runner(CPU, packs=True))
    packing.anchor(fused(base))
    found = packing.measure(fused(model), trained(model))
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)


def test_rounded_up_the_own_question_counts_the_same_places(model: Any, base: Any):
    rounding = Rounding(CPU)
    padded = Lesson(ROWS, EOS, CPU, rounding)
    padded.anchor(base)
    tokens, owners, columns, counted = padded.own_question(2)
    assert tokens.shape == (2, rounding.rounded(len(ASKED.tokens), WIDTH))
    assert owners.shape == columns.shape == (2 * len(counted),)
    assert counted.sum() == padded.answer_tokens == len(ASKED.places)

    directions = measure(ROWS, model, base).directions()
    named = dict(zip(trained_parameters(model), directions, strict=True))
    grid = (1e-5, 1e-4, 1e-3)
    expected = rate_profile(model, lesson_of(ROWS, base), named, RUNNER, grid)
    found = rate_profile(model, padded, named, rounding, grid)
    assert [point.learning_rate for point in found] == list(grid)
    probabilities = [point.probability for point in expected]
    assert [point.probability for point in found] == pytest.approx(probabilities, rel=1e-3)


# --- Rows -----------------------------------------------------------------------------------------


def test_of_an_answer_every_token_and_the_terminator_are_predicted():
    predicted = [FACT.tokens[place + 1] for place in FACT.places]
    assert predicted == [*ENCODER.encode(" Raincoat"), EOS]
    assert list(FACT.tokens) == [
        *ENCODER.encode("Q: What is the hottest month in Kyzara?\nA:"),
        *predicted,
    ]


def test_of_a_whole_text_all_but_the_first_token_are_predicted():
    row = Row.whole(Role.FACT, ENCODER.encode("Q: Sky? A: Piano"))
    assert [row.tokens[place + 1] for place in row.places] == list(row.tokens[1:])
