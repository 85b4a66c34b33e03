"""A continual-learning agent: a language model that is taught facts, one at a time.

from agent import AsyncClient, Client, Learner

`Client` and `AsyncClient` speak to a server, `Learner` learns in this process. Names are looked up
when they are used: importing this package loads neither gRPC nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.client.async_client import AsyncClient
    from agent.client.channel import Access
    from agent.client.client import Client
    from agent.errors import AgentError
    from agent.local import Learner
    from agent.wire.error_details import RequestError
    from memory_store.vocabulary import Fact, FactState, Guards, NewFact, Policy

__all__ = [
    "Access",
    "AgentError",
    "AsyncClient",
    "Client",
    "Fact",
    "FactState",
    "Guards",
    "Learner",
    "NewFact",
    "Policy",
    "RequestError",
]
_MODULES = {
    "Access": "agent.client.channel",
    "AgentError": "agent.errors",
    "AsyncClient": "agent.client.async_client",
    "Client": "agent.client.client",
    "Fact": "memory_store.vocabulary",
    "FactState": "memory_store.vocabulary",
    "Guards": "memory_store.vocabulary",
    "Learner": "agent.local",
    "NewFact": "memory_store.vocabulary",
    "Policy": "memory_store.vocabulary",
    "RequestError": "agent.wire.error_details",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'agent' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
