"""The paper's training step: whole texts, all weights, the first step of a fresh AdamW.

Curt (2024): text `Q: {question} A: {answer}`, the question's tokens in the loss, no terminator
taught; padded to 128 with the terminator, padding left out of the loss; AdamW (0.9, 0.999, 1e-8)
without weight decay or warm-up; the gradient clipped to a norm of 1. Each epoch is one such step.

Its direction does not depend on the rate, so one `descent` serves every rate tried from the same
weights. Dropout, which Pythia has none of, stays off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.errors import LearningFailedError
from agent.learner.engine.cuda_graphs import Runner
from agent.learner.inference.encoding import IGNORE, Batch, Encoder
from agent.learner.inference.logits import causal_mask
from agent.learner.training.update import adamw_directions, gradient, gradient_norm, take_step
from agent.teaching import prompts

TEXT_TOKENS = 128  # a longer text is cut off
CLIP = 1.0


@dataclass(frozen=True, slots=True)
class Descent:
    """Where a step goes.

    Attributes:
        loss: mean cross entropy over all predicted tokens of the batch before the step, nats.
        gradient_norm: before it is clipped.
        directions: as in `adamw_directions`, one for each of the model's parameters; on a GPU good
            until the next descent by the same runner.
    """

    loss: float
    gradient_norm: float
    directions: list[Tensor]


def paper_batch(encoder: Encoder, pairs: Sequence[tuple[str, str]]) -> Batch:
    """Questions and answers as the paper's texts, T as long as the longest.

    The scripts pad to 128 and mask it; causal attention makes that the same.
    """
    texts = [encoder.encode(prompts.paper_text(*pair))[:TEXT_TOKENS] for pair in pairs]
    return encoder.rows([text[:1] for text in texts], [text[1:] for text in texts])


def paper_loss(model: Any, batch: Batch) -> Tensor:
    """Mean cross entropy over all predicted tokens of the batch, []."""
    ids = batch.input_ids
    mask = causal_mask(ids) if ids.is_cuda else None
    logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits  # [B, T, V]
    targets = batch.labels[:, 1:].flatten()
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets, ignore_index=IGNORE)


def descent(model: nn.Module, batch: Batch, runner: Runner | None = None) -> Descent:
    """Where the step on a batch goes, at any rate.

    Args:
        model: a causal LM, all of whose parameters require a gradient. Left as it is.
        batch: from `paper_batch`.
        runner: for this model; None computes plainly.

    Raises:
        LearningFailedError: the loss or its gradient is not finite.
    """

    def descend(input_ids: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            loss = paper_loss(model, Batch(input_ids, labels))
            gradients = gradient(loss, list(model.parameters()))  # a tied matrix is listed once
        with torch.no_grad():
            norm = gradient_norm(gradients)
            # As `clip_grad_norm_` does it. Nearly nothing is left of it in a fresh AdamW's first
            # step.
            torch._foreach_mul_(gradients, (CLIP / (norm + 1e-6)).clamp(max=1.0))
            return (torch.stack([loss.detach(), norm]), *adamw_directions(gradients))

    runner = runner or Runner(batch.input_ids.device, graphs=False)
    values, *directions = runner.run("paper's step", descend, (batch.input_ids, batch.labels))
    loss, norm = values.tolist()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise LearningFailedError(f"the loss is {loss}, its gradient's norm {norm}")
    return Descent(loss, norm, directions)


def paper_step(model: nn.Module, batch: Batch, learning_rate: float) -> Descent:
    """One step on a batch, in place; see `descent`."""
    found = descent(model, batch)
    take_step(list(model.parameters()), found.directions, learning_rate)
    return found
