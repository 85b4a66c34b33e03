from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from agent.learner.environment import make_deterministic


@pytest.fixture(autouse=True)
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("agent.server.loop.backoff.FIRST_RESTART_SECONDS", 0.0)
    monkeypatch.setattr("agent.server.loop.backoff.FIRST_REST_SECONDS", 0.0)
    threads = torch.get_num_threads()
    make_deterministic(1)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
