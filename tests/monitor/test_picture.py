"""Pictures of terminals are what the script makes of the recording, and fetch nothing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "pictures.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pictures_are_up_to_date(script: ModuleType) -> None:
    made = script.terminal_pictures()
    assert set(made) == {path.name for path in script.PICTURES.glob("*.svg")}
    for name, text in made.items():
        kept = (script.PICTURES / name).read_text(encoding="utf-8")
        assert text == kept, "run: make pictures"


def test_the_pictures_fetch_nothing(script: ModuleType) -> None:
    for text in script.terminal_pictures().values():
        assert not re.search(r"@font-face|@import|url\((?!#)|href=", text)
        assert re.search("Wh(at|ich|o)", text)  # it shows a fact


def test_pictures_and_recording_are_small_enough_to_be_kept(script: ModuleType) -> None:
    for path in script.PICTURES.iterdir():
        assert path.stat().st_size < 300_000, path.name
