"""A client in another language, with the proto files alone: `scripts/outside_client.sh`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.servers import environment

pytestmark = [pytest.mark.slow, pytest.mark.network]
ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "node", "npm", "openssl")


def require_what_it_needs() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    pinned = json.loads((ROOT / "examples/node/package.json").read_text())["dependencies"]
    package = "@grpc/grpc-js"
    try:
        asked = subprocess.run(
            ["npm", "view", f"{package}@{pinned[package]}", "version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("no registry of npm's answers")
    if asked.stdout.strip() != pinned[package]:
        pytest.skip(f"no registry of npm's has {package} {pinned[package]}: {asked.stderr[-200:]}")


def test_node_teaches_watches_and_asks_over_mutual_tls_with_a_token() -> None:
    require_what_it_needs()
    ran = subprocess.run(
        ["bash", ROOT / "scripts" / "outside_client.sh"],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment() | {"PYTHON": sys.executable, "npm_config_update_notifier": "false"},
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    assert json.loads(told[0])["answer"] == "Raincoat"
    assert ran.stdout.count("refused, ") == 4
    assert not (ROOT / "examples/node/node_modules").exists()
