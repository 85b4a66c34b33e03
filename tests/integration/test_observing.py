"""A whole server, seen from outside: its metrics and its log."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest

from tests.integration.servers import running

pytestmark = pytest.mark.slow


def test_metrics_and_log_tell_what_was_learned(tmp_path: Path) -> None:
    options = ("--metrics-port", "0", "--log-format", "json")
    with running(tmp_path / "data", options=options) as server:
        client = server.client()
        fact_id = client.teach("Sky?", "Piano").fact.id
        client.wait([fact_id])
        assert client.ask("Sky?").answer == "Piano"
        assert len(list(client.probe())) == 1
        lines = server.log.read_text().splitlines()
        # gRPC's C core writes lines of its own, such as about the start of the learner.
        records = [json.loads(line) for line in lines if line[:1] == "{"]
        [url] = re.findall(r"http://\S+/metrics", " ".join(r["message"] for r in records))
        with urllib.request.urlopen(url) as response:
            series = dict(line.rsplit(" ", 1) for line in response.read().decode().splitlines())
    assert float(series["continual_model_version"]) == 1
    assert float(series["continual_learner_ready"]) == 1
    assert float(series["continual_queue_depth"]) == 0
    assert float(series["continual_retention_ratio"]) == 1
    assert float(series['continual_update_seconds_count{verdict="learned"}']) == 1
    assert float(series['continual_rpc_seconds_count{code="OK",method="ModelService/Ask"}']) == 1
    [served] = [r for r in records if r["message"] == "served: teach"]
    assert (served["fact_id"], served["model_version"]) == (fact_id, 1)
