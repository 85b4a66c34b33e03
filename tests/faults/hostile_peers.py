"""Real servers among hostile HTTP/2 peers: facts are acknowledged and kept, health is true, and
SIGTERM ends the server."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memory_store.store import MemoryStore
from tests.faults.findings import Findings, check_memory
from tests.integration.servers import PATIENCE_SECONDS, RunningServer, running
from tests.server.hostile import ATTACKS
from tests.server.http2 import RawPeer

FACTS = 5
PEERS = 20
DRAIN_SECONDS = 2
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def run(folder: Path, cases: int, seed: int) -> Findings:
    """So many servers, each with peers of several kinds, of which one kind is in the majority."""
    findings = Findings(kind="hostile HTTP/2 peers", seed=seed)
    chance = random.Random(seed)
    names = list(ATTACKS)
    chance.shuffle(names)
    for number in range(cases):
        main = names[number % len(names)]
        data = folder / f"hostile-{number}"
        options = ("--drain-seconds", str(DRAIN_SECONDS))
        with running(data, options=options) as server:
            peers = [
                await ATTACKS[main if chance.random() < 0.6 else chance.choice(names)](
                    server.address
                )
                for _ in range(PEERS)
            ]
            acknowledged = _go_on(server, findings, main)
            _stop(server, findings, main)
            _close(peers)
        with MemoryStore.open(data / "memory.db") as store:
            check_memory(store, acknowledged, findings, main)
        findings.cases += 1
        findings.points[main] += 1
    return findings


def _go_on(server: RunningServer, findings: Findings, name: str) -> list[str]:
    """Teaches, and looks at health while the learner dies; the ids of what was acknowledged."""
    client = server.client()
    taught = [
        client.teach(f"What is {number}?", "Piano", fact_id=f"fact-{number}").fact.id
        for number in range(FACTS)
    ]
    with grpc.insecure_channel(server.address) as channel:
        watched: Iterator[health_pb2.HealthCheckResponse] = health_pb2_grpc.HealthStub(
            channel
        ).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
        if next(watched).status == NOT_SERVING:
            findings.diverge(f"{name}: the server does not serve")
        os.kill(server.learner_pid(), signal.SIGKILL)
        died = time.monotonic()
        while next(watched).status != NOT_SERVING:
            pass
        # How long it took is reported, not judged: the machine may be busy.
        findings.remarks.append(f"{name}: health knew after {time.monotonic() - died:.2f} s")
    return taught


def _stop(server: RunningServer, findings: Findings, name: str) -> None:
    server.clients.close()
    server.process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    try:
        code = server.process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        findings.diverge(f"{name}: the server did not end in {PATIENCE_SECONDS:.0f} s")
        server.kill()
        return
    findings.remarks.append(f"{name}: it ended after {time.monotonic() - asked:.1f} s")
    if code:
        findings.diverge(f"{name}: the server ended with code {code}")


def _close(peers: list[RawPeer]) -> None:
    for peer in peers:
        peer.close()
