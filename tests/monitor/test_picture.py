"""The README's picture is what the script makes of the recording, and fetches nothing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "monitor_picture.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("monitor_picture", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_up_to_date(script: ModuleType) -> None:
    kept = script.PICTURE.read_text(encoding="utf-8")
    assert script.picture() == kept, "run: python scripts/monitor_picture.py"


def test_the_picture_fetches_nothing(script: ModuleType) -> None:
    kept = script.PICTURE.read_text(encoding="utf-8")
    assert not re.search(r"@font-face|@import|url\((?!#)|href=", kept)
    assert "Which" in kept or "What" in kept  # it shows a fact


def test_the_recording_is_small_enough_to_be_kept(script: ModuleType) -> None:
    assert script.RECORDING.stat().st_size < 300_000
