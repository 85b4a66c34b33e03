"""The plain way: what one would write with transformers and torch, without this project."""

from __future__ import annotations

import copy
from collections.abc import Sequence
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


class Plain:
    """A copy of a model with its library's own attention, and steps of `torch.optim.AdamW` on it.

    Args:
        loaded: stays as it is.

    Attributes:
        model: the copy.
        everything: all its weights.
        trained: those that our updates change too.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        # A copy: no CUDA graph can be captured of weights that had a gradient outside of one.
        self.model: Any = copy.deepcopy(loaded.model)
        self.model.set_attn_implementation("sdpa")
        self.everything: list[nn.Parameter] = list(self.model.parameters())
        self.trained: list[nn.Parameter] = list(trained_parameters(self.model).values())
        self._start = [parameter.detach().clone() for parameter in self.trained]

    def only(self, parameters: Sequence[nn.Parameter]) -> None:
        """These are trained from now on."""
        self.model.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the weights back that `trained` names."""
        torch._foreach_copy_([*self.trained], self._start)

    @torch.no_grad()
    def changes(self) -> Sequence[Tensor]:
        """Of the weights that `trained` names, since the start."""
        return differences(self.trained, self._start)

    def descend(self, batch: Batch, parameters: Sequence[nn.Parameter], clip: float) -> None:
        """Leaves the gradient of a batch with the parameters that it is trained in."""
        with as_usual():
            for parameter in parameters:
                parameter.grad = None
            loss = self.model(input_ids=batch.input_ids, labels=batch.labels, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, clip)

    def step(self, parameters: Sequence[nn.Parameter], rate: float) -> None:
        """The first step of a fresh AdamW along that gradient."""
        # The fastest that torch has: its default takes longer.
        torch.optim.AdamW(parameters, lr=rate, weight_decay=0, fused=True).step()

    def update(self, batch: Batch, parameters: Sequence[nn.Parameter], rate: float) -> None:
        """One update as it is usually written."""
        self.descend(batch, parameters, CLIP)
        self.step(parameters, rate)

    @torch.no_grad()
    def probability(self, batch: Batch) -> float:
        """Of the answer of a batch of one."""
        with as_usual():
            loss = self.model(input_ids=batch.input_ids, labels=batch.labels, use_cache=False).loss
        return float((-loss * (batch.labels[:, 1:] >= 0).sum()).exp())


@torch.no_grad()
def differences(some: Sequence[Tensor], others: Sequence[Tensor]) -> Sequence[Tensor]:
    """Of one list of tensors from another."""
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
        eos: the token that ends a text, and fills it up.
        sampling: settings, `max_new_tokens` among them.
        samples: of each prompt; they come one after the other.
        returned: what else `generate` is to tell; see `GenerationConfig`.
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
