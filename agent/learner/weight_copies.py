"""The three copies of the weights that a learner holds.

The *served* copy is that of a committed ledger position and answers every question; the *working*
copy is what an update changes, so a question in the middle of an update is answered by weights that
have a version, and undoing an update is a copy. The *base* copy never changes: guards hold an
update to what it says. What no update changes (embeddings, norms) they share.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from agent.learner.digest import weights_digest
from agent.learner.engine.fused_layers import TRITON, Operations, fuse, kernels_for
from agent.learner.training.update import trained_parameters


class WeightCopies:
    """The copies, and what the working one holds.

    Args:
        model: the base checkpoint; it becomes the served copy.

    Attributes:
        served: answers questions.
        base: as loaded.
        working: changed by updates.
        trained: the weights of `working` that change, by name.
        learned_digest: of the working copy, once an update on it has ended well; empty otherwise.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.served = model.requires_grad_(False)
        self.base = _copy_of(self.served)
        self.working = _copy_of(self.served)
        if kernels_for(model.device.type) == TRITON:
            for each in (self.served, self.base, self.working):
                fuse(each, Operations.by_triton())
        self.trained: Mapping[str, nn.Parameter] = trained_parameters(self.working)
        for parameter in self.trained.values():
            parameter.requires_grad_(True)
        self.learned_digest = ""
        self._working = list(self.trained.values())
        self._served = list(trained_parameters(self.served).values())
        self._working_differs = False

    def change(self) -> None:
        """Call before the working copy is changed: until it is served, `put_back` undoes that."""
        self._working_differs, self.learned_digest = True, ""

    def put_back(self) -> None:
        """Makes the working copy equal to the served one."""
        if self._working_differs:
            _copy(self._served, self._working)
            self._working_differs = False
        self.learned_digest = ""

    def start_from_base(self) -> None:
        """Makes the working copy equal to the base checkpoint."""
        self.change()
        _copy(list(trained_parameters(self.base).values()), self._working)

    def serve(self) -> None:
        """Makes the served copy equal to the working one."""
        _copy(self._working, self._served)
        self._working_differs, self.learned_digest = False, ""

    def serve_if(self, weights: Mapping[str, Tensor], digest: str) -> bool:
        """Serves other weights if the model then has this digest; whether it does.

        Args:
            weights: all trained ones, by name.
            digest: expected; see `weights_digest`.
        """
        self.change()
        _copy([weights[name] for name in self.trained], self._working)
        if weights_digest(self.working) != digest:
            return False
        self.serve()
        return True

    def served_on_cpu(self) -> dict[str, Tensor]:
        """A copy of the served weights that updates change, by name: what a snapshot holds."""
        return {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in zip(self.trained, self._served, strict=True)
        }


@torch.no_grad()
def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    for from_, to in zip(source, target, strict=True):
        to.copy_(from_)


def _copy_of(model: Any) -> Any:
    """A copy with weights of its own, but for those that no update changes."""
    trained = {id(parameter) for parameter in trained_parameters(model).values()}
    shared = {id(p): p for p in model.parameters() if id(p) not in trained}
    return copy.deepcopy(model, shared)
