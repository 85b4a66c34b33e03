"""All checks for one server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pysqlite3

from agent.config import ServeSettings
from agent.doctor.findings import Finding, State
from agent.doctor.machine import (
    available_memory,
    check_clock,
    check_memory,
    check_python,
    check_sqlite,
)
from agent.doctor.models import check_device, check_model, needed_memory, weights
from agent.doctor.network import check_metrics, check_port, check_security
from agent.doctor.storage import (
    check_file_system,
    check_folder,
    check_space,
    check_sync,
    check_upgrade,
    free_bytes,
    newest_change,
    sync_milliseconds,
)
from agent.errors import AgentError
from agent.server.data.file_systems import existing, file_system_of
from agent.server.data.folder import is_held
from memory_store.errors import MemoryStoreError


def examine(plan: ServeSettings) -> Iterator[Finding]:
    """Checks whether such a server can run here; a check that breaks is a finding too."""
    checks: Sequence[tuple[str, Callable[[], Finding]]] = (
        ("python", check_python),
        ("device", lambda: check_device(plan.device, needed_memory(plan.model))),
        ("memory", lambda: check_memory(available_memory(), needed_memory(plan.model))),
        ("sqlite", lambda: check_sqlite(pysqlite3.sqlite_version_info)),
        ("data folder", lambda: check_folder(plan.data)),
        (
            "disk kind",
            lambda: check_file_system(
                file_system_of(existing(plan.data)), allow_network=plan.allow_network_filesystem
            ),
        ),
        ("disk speed", lambda: check_sync(sync_milliseconds(existing(plan.data)))),
        ("disk space", lambda: check_space(free_bytes(plan.data), weights(plan.model))),
        ("model", lambda: check_model(plan.model)),
        ("upgrade", lambda: check_upgrade(plan.data)),
        ("clock", lambda: check_clock(datetime.now(UTC), newest_change(plan.data))),
        (
            "port",
            lambda: check_port(plan.listen, held=is_held(plan.data), security=plan.security),
        ),
        ("security", lambda: check_security(plan.listen, plan.security)),
    )
    if (port := plan.observability.metrics_port) is not None:
        host, held = plan.observability.metrics_host, is_held(plan.data)
        checks = (*checks, ("metrics", lambda: check_metrics(host, port, held=held)))
    for name, check in checks:
        try:
            yield replace(check(), check=name)
        except (AgentError, MemoryStoreError, OSError) as error:
            yield Finding(check=name, state=State.BAD, found=str(error))
