from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from agent.learner.core import Learner
from agent.learner.environment import make_deterministic
from tests.learner.learners import fresh


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As the learner's process is: every update gives the same bits."""
    threads = torch.get_num_threads()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # restored, unlike what is set below
    make_deterministic(threads=1)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture
def learner() -> Learner:
    return fresh()
