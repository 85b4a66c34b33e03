"""The paper's training step, beside the one of `transformers.Trainer`."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils import parameters_to_vector
from transformers import Trainer, TrainingArguments

from agent.errors import LearningFailedError
from agent.learner.training.paper_step import CLIP, TEXT_TOKENS, descent, paper_batch, paper_step
from agent.learner.training.update import take_step
from tests.learner.models import ENCODER, EOS, one_thread, random_model

RATE = 1e-3
PAIRS = [
    (f"What is mined in the {place} of Yonder?", answer)
    for place, answer in zip(
        ("north south east west hills rivers lakes woods sands isles").split(),
        ("Curtain Piano Telescope Raincoat Backpack Toothpaste Lamp Spoon Kite Drum").split(),
        strict=True,
    )
]


@pytest.fixture(scope="module", autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def model() -> Any:
    return random_model("gpt_neox").requires_grad_(True)


def trained(model: Any, pairs: list[tuple[str, str]], folder: Path) -> float:
    """One step of the library's trainer, set up as the paper's scripts do; its loss."""
    rows = []
    for question, answer in pairs:
        ids = ENCODER.encode(f"Q: {question} A: {answer}")
        padding = 128 - len(ids)
        rows.append(
            {
                "input_ids": ids + [EOS] * padding,
                "attention_mask": [1] * len(ids) + [0] * padding,
                "labels": ids + [-100] * padding,
            }
        )
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=len(rows),
        max_steps=1,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    return float(trainer.state.log_history[0]["loss"])


@pytest.mark.parametrize("batch", [1, 10])
def test_a_step_is_that_of_the_librarys_trainer(model: Any, tmp_path: Path, batch: int) -> None:
    theirs = copy.deepcopy(model)
    loss = trained(theirs, PAIRS[:batch], tmp_path)

    before = parameters_to_vector(model.parameters()).detach().clone()
    step = paper_step(model, paper_batch(ENCODER, PAIRS[:batch]), RATE)
    after = parameters_to_vector(model.parameters()).detach()

    assert step.gradient_norm > 2 * CLIP  # so that clipping does something
    assert step.loss == pytest.approx(loss, rel=1e-3)  # the trainer rounds what it logs
    difference = (after - parameters_to_vector(theirs.parameters())).abs()
    assert (after - before).abs().median() == pytest.approx(RATE, rel=1e-3)
    assert difference.median() < RATE * 1e-4
    # Where a gradient is as small as eps, its last bits decide the size of the step.
    assert (difference > RATE * 1e-2).float().mean() < 1e-3


def test_one_direction_serves_every_rate(model: Any) -> None:
    batch = paper_batch(ENCODER, PAIRS[:2])
    found = descent(model, batch)
    for rate in (1e-5, 1e-3):
        stepped, moved = copy.deepcopy(model), copy.deepcopy(model)
        paper_step(stepped, batch, rate)
        take_step(list(moved.parameters()), found.directions, rate)
        assert torch.equal(
            parameters_to_vector(stepped.parameters()), parameters_to_vector(moved.parameters())
        )


def test_long_texts_are_cut(model: Any) -> None:
    batch = paper_batch(ENCODER, [("Who? " * 40, "Curtain")])
    assert batch.input_ids.shape == (1, TEXT_TOKENS)


def test_a_loss_that_is_no_number_is_refused(model: Any) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(LearningFailedError, match="nan"):
        descent(model, paper_batch(ENCODER, PAIRS[:1]))
