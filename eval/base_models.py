"""The model that a suite teaches: a fresh copy for each teacher."""

from __future__ import annotations

from functools import partial

from agent.learner.environment import make_deterministic
from agent.models.loading import LoadedModel, load


class BaseModels:
    """Copies of one base model, in a process whose results can be repeated bit by bit.

    Args:
        name: known name, Hub id or folder; its files are on this machine.
        device: auto, cpu or cuda.
        threads: CPU threads; None leaves it to torch.

    Attributes:
        first: is loaded at once, for its tokenizer and provenance; the first teacher gets it.

    Raises:
        ModelError: the model cannot be used.
        ConfigError: the device is not there.
    """

    def __init__(self, name: str, device: str, threads: int | None = None) -> None:
        make_deterministic(threads)
        self._load = partial(load, name, device=device)
        self.first = self._load()
        self._unused = [self.first]

    def take(self) -> LoadedModel:
        """A copy that nobody has taught anything."""
        return self._unused.pop() if self._unused else self._load()
