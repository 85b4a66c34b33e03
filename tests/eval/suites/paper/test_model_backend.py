"""The backend with the tiny model: its steps, its weights, and what it asks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from agent.learner.inference.encoding import Encoder
from agent.learner.training.paper_step import paper_batch, paper_step
from agent.models.loading import LoadedModel, load
from eval.suites.paper.facts import PAPER_FACTS
from eval.suites.paper.measurements import Measurement
from eval.suites.paper.model_backend import ROOM_WITHOUT_ROOM, ModelBackend
from eval.suites.paper.protocol import Drawn, Fixed
from eval.suites.paper.trials import Call, Cell, CellKey
from memory_store.vocabulary import ProbeKind

PAIRS = (("Q", "ab"), ("What is it?", "cd"))
SHORT = Drawn(max_new_tokens=12, temperature=1.0, top_p=1.0, top_k=50)


@pytest.fixture
def loaded() -> LoadedModel:
    return load("tiny", device="cpu")


@pytest.fixture
def backend(loaded: LoadedModel) -> ModelBackend:
    return ModelBackend(loaded, seed=0, estimates=True)


def weights(loaded: LoadedModel) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in loaded.model.parameters()]


def same(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def call(*pairs: tuple[str, str], sampling: Fixed | Drawn = SHORT, samples: int = 40) -> Call:
    return Call(
        cells=tuple(
            Cell(
                key=CellKey(1, "paper", "", 0.0, 0, ProbeKind.RETENTION, question),
                question=question,
                answer=answer,
                samples=samples,
            )
            for question, answer in pairs
        ),
        sampling=sampling,
    )


def asked(backend: ModelBackend, *calls: Call, done: Sequence[CellKey] = ()) -> list[Measurement]:
    return sorted(backend.ask(calls, set(done)), key=lambda cell: cell.key)


def test_steps_are_the_papers_and_end_at_the_base_model(loaded: LoadedModel, backend: ModelBackend):
    base = weights(loaded)
    losses = [backend.step(PAIRS, 1e-3), backend.step(PAIRS, 1e-3)]
    after = weights(loaded)
    assert losses[1] < losses[0]
    backend.back_to_base()
    assert same(weights(loaded), base)
    # The gradient of the base model is kept for the next rate: nothing differs.
    assert [backend.step(PAIRS, 1e-3), backend.step(PAIRS, 1e-3)] == losses
    assert same(weights(loaded), after)

    other = load("tiny", device="cpu")
    batch = paper_batch(Encoder(other.tokenizer, other.eos_token_id, other.device), PAIRS)
    for _ in range(2):
        paper_step(other.model, batch, 1e-3)
    assert same(weights(other), after)


def test_another_batch_has_another_gradient(loaded: LoadedModel, backend: ModelBackend):
    backend.step(PAIRS, 1e-3)
    backend.back_to_base()
    backend.step(PAIRS[:1], 1e-3)
    one = weights(loaded)
    backend.back_to_base()
    backend.step(PAIRS, 1e-3)
    assert not same(weights(loaded), one)


def counted(cell: Measurement) -> Measurement:
    """Without what is no count."""
    return replace(cell, log_probability=0, estimate=0, estimate_error=0)


def test_cells_come_out_the_same_in_any_company(backend: ModelBackend):
    whole = asked(backend, call(*PAIRS, ("x", "e")))
    assert [cell.key.fact_id for cell in whole] == ["Q", "What is it?", "x"]
    for cell in whole:
        assert 0 < cell.tokens <= 40 * 12
        assert cell.log_probability is not None
        assert cell.estimate is not None
        assert 0 < len(cell.examples) <= 6
    assert whole[2].correct > 0  # one letter is soon met by chance
    rest = asked(backend, call(*PAIRS, ("x", "e")), done=[whole[0].key])
    assert list(map(counted, rest)) == list(map(counted, whole[1:]))
    # Some processors round otherwise where a batch has other rows.
    for name in ("log_probability", "estimate", "estimate_error"):
        assert [getattr(cell, name) for cell in rest] == pytest.approx(
            [getattr(cell, name) for cell in whole[1:]], rel=1e-5
        )


def test_a_step_shows_in_the_exact_probability(backend: ModelBackend):
    (before,) = asked(backend, call(PAIRS[1], samples=4))
    backend.step(PAIRS[1:], 3e-3)
    (after,) = asked(backend, call(PAIRS[1], samples=4))
    assert before.log_probability is not None
    assert after.log_probability is not None
    assert after.log_probability > before.log_probability + 1


def test_the_longest_prompt_of_a_call_leaves_its_room_to_all(backend: ModelBackend):
    fixed = call(("a" * 30, "x"), ("b" * 45, "x"), sampling=Fixed(), samples=2)
    assert {cell.max_new_tokens for cell in asked(backend, fixed)} == {5}
    assert backend.notes([fixed]) == []
    alone = call(("a" * 30, "x"), sampling=Fixed(), samples=2)
    assert [cell.max_new_tokens for cell in asked(backend, alone)] == [20]


def test_where_no_room_is_left_it_says_what_it_does_instead(backend: ModelBackend):
    fact = PAPER_FACTS[5]
    full = call((fact.question, fact.answer), sampling=Fixed(), samples=2)
    assert [cell.max_new_tokens for cell in asked(backend, full)] == [ROOM_WITHOUT_ROOM]
    (note,) = backend.notes([full, call(PAIRS[0])])
    assert note.startswith("NOT THE PROTOCOL: max_length 50")


def test_broken_weights_answer_nothing(loaded: LoadedModel, backend: ModelBackend):
    with torch.no_grad():
        next(loaded.model.parameters()).fill_(math.nan)
    assert math.isnan(backend.step(PAIRS, 1e-3))
    assert math.isnan(backend.step(PAIRS, 1e-3))
    (cell,) = asked(backend, call(PAIRS[0]))
    assert (cell.samples, cell.correct, cell.tokens) == (40, 0, 0)
    assert (cell.log_probability, cell.estimate, cell.examples) == (None, None, ())
