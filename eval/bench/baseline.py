"""The baseline: what you would write with transformers and torch, without this project."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from agent.learner.inference.encoding import Batch
from agent.learner.sampling.truncation import Sampling
from agent.learner.training.update import trained_parameters
from agent.models.loading import LoadedModel
from eval.bench.rounds import as_usual

CLIP = 1.0


class Weights:
    """Weights that can be put back to where they were.

    Args:
        weights: changed in place by others.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._weights = [weight.detach() for weight in weights]
        self._start = [weight.clone() for weight in self._weights]

    def restore(self) -> None:
        """Puts them back."""
        torch._foreach_copy_(self._weights, self._start)

    def changes(self) -> Sequence[Tensor]:
        """What has changed since the start."""
        return differences(self._weights, self._start)


class Baseline:
    """A copy of a model with its library's own attention, and steps of `torch.optim.AdamW` on it.

    Args:
        loaded: is not changed.

    Attributes:
        model: the copy.
        everything: all its weights.
        trained: those that our updates change too.
        saved: the same, to be put back.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        # A copy: no CUDA graph can be captured of weights that had a gradient outside of one.
        self.model: Any = copy.deepcopy(loaded.model)
        self.model.set_attn_implementation("sdpa")
        self.everything: list[nn.Parameter] = list(self.model.parameters())
        self.trained: list[nn.Parameter] = list(trained_parameters(self.model).values())
        self.saved = Weights(self.trained)

    def only(self, parameters: Sequence[nn.Parameter]) -> None:
        """Trains only these from now on."""
        self.model.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)

    def descend(self, batch: Batch, parameters: Sequence[nn.Parameter], clip: float) -> None:
        """Computes the gradient of a batch, clipped, in these parameters."""
        with as_usual():
            for parameter in parameters:
                parameter.grad = None
            self._loss(batch).backward()
            torch.nn.utils.clip_grad_norm_(parameters, clip)

    def step(self, parameters: Sequence[nn.Parameter], rate: float) -> None:
        """Takes the first step of a new AdamW along that gradient."""
        # `fused` is the fastest implementation of torch.
        torch.optim.AdamW(parameters, lr=rate, weight_decay=0, fused=True).step()

    def update(self, batch: Batch, parameters: Sequence[nn.Parameter], rate: float) -> None:
        """Takes one update as it is usually written."""
        self.descend(batch, parameters, CLIP)
        self.step(parameters, rate)

    @torch.no_grad()
    def probability(self, batch: Batch) -> float:
        """The probability of the answer of a batch of one."""
        with as_usual():
            loss = self._loss(batch)
        return float((-loss * (batch.labels[:, 1:] >= 0).sum()).exp())

    def _loss(self, batch: Batch) -> Tensor:
        output = self.model(input_ids=batch.input_ids, labels=batch.labels, use_cache=False)
        loss: Tensor = output.loss
        return loss


@torch.no_grad()
def differences(some: Sequence[Tensor], others: Sequence[Tensor]) -> Sequence[Tensor]:
    """One list of tensors minus another."""
    return [one - other for one, other in zip(some, others, strict=True)]


def generated(
    model: Any,
    prompts: Sequence[Sequence[int]],
    eos: int,
    sampling: Sampling,
    samples: int = 1,
    **returned: bool,
) -> Any:
    """What `generate` makes of a batch of prompts, padded on the left.

    Args:
        model: a causal LM.
        prompts: tokens of each.
        eos: the token that ends texts and pads them.
        sampling: settings, with `max_new_tokens`.
        samples: of each prompt; they follow one another.
        returned: what else `generate` returns; see `GenerationConfig`.
    """
    width = max(map(len, prompts))
    padding = [width - len(ids) for ids in prompts]
    padded = [[eos] * n + [*ids] for n, ids in zip(padding, prompts, strict=True)]
    mask = [[0] * n + [1] * (width - n) for n in padding]
    settings = GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        max_new_tokens=sampling.max_new_tokens,
        num_return_sequences=samples,
        eos_token_id=eos,
        pad_token_id=eos,
        return_dict_in_generate=bool(returned),
        **returned,
    )
    with as_usual():
        return model.generate(
            torch.tensor(padded, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            generation_config=settings,
        )
