"""The lesson: what one batched pass measures is what each row, alone and plainly, would give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from agent.learning.lesson import (
    NEIGHBOUR_WEIGHT,
    REHEARSAL_WEIGHT,
    TEXT_WEIGHT,
    Lesson,
    Measured,
    Role,
    Row,
)
from agent.learning.logits import logits_at
from agent.learning.update import gradient, trained_parameters
from tests.learning.models import CPU, ENCODER, EOS, FAMILIES, one_thread, random_model

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
    lesson = Lesson(rows, EOS, CPU)
    lesson.anchor(base)
    return lesson


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
    """Mean over the row's places of KL(base || model)."""
    ours, theirs = plain_log_probabilities(model, row), plain_log_probabilities(base, row)
    each = [(theirs[p].exp() * (theirs[p] - ours[p])).sum() for p in row.places]
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
    measured = lesson_of(ROWS, base).measure(model)
    for role in (Role.FACT, Role.ASKED, Role.REHEARSED, Role.CONTROL):
        alone = [(-plain_nats(model, row).sum()).exp().item() for row in ROWS if row.role is role]
        assert measured.probabilities[role] == pytest.approx(alone, rel=1e-4)
        assert measured.divergences[role] == []
    assert measured.asked == measured.probabilities[Role.ASKED][0]
    assert measured.reworded == measured.probabilities[Role.FACT][1]


def test_divergences_are_those_of_each_row_alone(model: Any, base: Any):
    measured = lesson_of(ROWS, base).measure(model)
    for role in (Role.NEIGHBOUR, Role.TEXT):
        alone = [plain_divergence(model, base, row).item() for row in ROWS if row.role is role]
        assert min(alone) > 0.01
        assert measured.divergences[role] == pytest.approx(alone, rel=1e-4)
        assert measured.probabilities[role] == []


def test_from_itself_a_model_does_not_diverge(model: Any):
    measured = lesson_of(ROWS, model).measure(model)
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
    measured = lesson_of(rows, base).measure(model)
    assert measured.loss.item() == pytest.approx(plain_loss(model, base, rows).item(), rel=1e-5)
    forms = [plain_nats(model, row).mean() for row in rows if row.role is Role.FACT]
    assert measured.fact_loss == pytest.approx(mean(forms).item(), rel=1e-5)


def test_the_gradient_is_that_of_the_loss_computed_row_by_row(model: Any, base: Any):
    parameters = trained_parameters(model)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    values = list(parameters.values())
    found = gradient(lesson_of(ROWS, base).measure(model).loss, values)
    expected = gradient(plain_loss(model, base, ROWS), values)
    for name, ours, theirs in zip(parameters, found, expected, strict=True):
        assert theirs.abs().max() > 0, name
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("extra", [ASKED, CONTROL], ids=["asked", "control"])
def test_nothing_is_learned_from_what_is_only_looked_at(model: Any, base: Any, extra: Row):
    parameters = [p.requires_grad_(True) for p in trained_parameters(model).values()]
    without = gradient(lesson_of([FACT], base).measure(model).loss, parameters)
    beside = gradient(lesson_of([FACT, extra], base).measure(model).loss, parameters)
    for ours, theirs in zip(beside, without, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_the_order_of_the_rows_matters_within_a_role_only(model: Any, base: Any):
    sorted_by_hand = sorted(ROWS, key=lambda row: row.role)
    some, others = (lesson_of(rows, base).measure(model) for rows in (ROWS, sorted_by_hand))
    assert torch.equal(some.loss, others.loss)
    assert plain(some) == plain(others)


def plain(measured: Measured) -> tuple[dict[Role, list[float]], dict[Role, list[float]]]:
    return measured.probabilities, measured.divergences


def test_texts_in_a_batch_of_their_own_pad_nobody_and_change_nothing(model: Any, base: Any):
    short = [row for row in ROWS if row.role is not Role.TEXT]
    shapes: list[tuple[int, ...]] = []
    watching = model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    with_texts = lesson_of(ROWS, base).measure(model)
    watching.remove()
    of_short, of_texts = (max(len(row.tokens) for row in rows) for rows in (short, TEXTS))
    assert of_texts > of_short
    assert shapes == [(len(short), of_short), (len(TEXTS), of_texts)]

    without = lesson_of(short, base).measure(model)
    assert with_texts.probabilities == without.probabilities
    neighbours = without.divergences[Role.NEIGHBOUR]
    assert with_texts.divergences[Role.NEIGHBOUR] == pytest.approx(neighbours, rel=1e-6)


def test_what_fills_rows_up_does_not_matter(model: Any, base: Any):
    other = Lesson(ROWS, pad=65, device=CPU)
    other.anchor(base)
    measured, padded_otherwise = lesson_of(ROWS, base).measure(model), other.measure(model)
    assert torch.equal(measured.loss, padded_otherwise.loss)
    assert plain(measured) == plain(padded_otherwise)


# --- The fact's own question, for the rate profile ------------------------------------------------


def test_the_own_question_is_asked_as_often_as_wanted(model: Any, base: Any):
    lesson = lesson_of([row for row in ROWS if row is not ASKED], base)
    expected = (-plain_nats(model, FACT).sum()).exp().item()
    assert lesson.asked(model, 3) == pytest.approx([expected] * 3, rel=1e-4)


def test_the_own_question_is_looked_at_apart_where_another_text_is_taught(model: Any, base: Any):
    expected = (-plain_nats(model, ASKED).sum()).exp().item()
    assert lesson_of(ROWS, base).asked(model, 2) == pytest.approx([expected] * 2, rel=1e-4)


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
