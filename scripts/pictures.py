"""Makes the pictures of the documentation.

    python scripts/pictures.py            those of terminals, from a recording of a real run
    python scripts/pictures.py --pages    also those of the HTML reports, by a headless Chromium

`docs/pictures/monitor.jsonl` was kept by `agent monitor --record` while the ten facts of table 1 of
Curt (2024) were taught to `agent serve --model smollm2-135m` on a CPU. The reports are made anew
with the model `tiny`: what they look like is to be seen, not what they say.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from rich.console import Console, RenderableType
from rich.text import Text

from agent.cli.curve import curve_lines
from agent.monitor.lines import Frame
from agent.monitor.panes import Look
from agent.monitor.recording import read
from agent.monitor.run import one_frame
from agent.monitor.ui import Page, Ui
from memory_store.vocabulary import Fact

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
RECORDING = PICTURES / "monitor.jsonl"
WIDTH, HEIGHT, CURVE_WIDTH = 100, 30, 72
# Nothing is fetched by who looks at the picture: any font of fixed width will do.
FONT_FACE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
FONTS = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Pages are as wide as a text column; so much of each is shown.
PAGE_WIDTH, PAGE_HEIGHT = 900, 1000
COLOURS = 64
TINY = ("--model", "tiny")
# It has random weights, so that any fact is far from what it says.
ROUGH = ("--guards", "rehearsal", "--allow-ungated", "--most-steps", "200")
LARGE_STEPS = ("--policy", "until-known", "--learning-rate", "3e-3", "--max-steps", "200")
ADDRESS, START_SECONDS = "127.0.0.1:50957", 120


def main() -> None:
    """Writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--pages", action="store_true", help="those of HTML reports too")
    for name, text in terminal_pictures().items():
        (PICTURES / name).write_text(text, encoding="utf-8")
    if parser.parse_args().pages:
        take_pages()


# --- Terminals ------------------------------------------------------------------------------------


def terminal_pictures() -> dict[str, str]:
    """SVG by name: a fact in the middle of its steps, all facts, and the rate curve of one."""
    # So many observations were made by then.
    steps, (fact, *_) = _frame(257, Ui()), _facts()
    assert fact.learning is not None
    rates = fact.learning.learning_rates
    curve = [fact.question, "", *curve_lines(fact.learning.curve, rates[0], CURVE_WIDTH)]
    return {
        "monitor.svg": _svg("agent monitor", steps, WIDTH),
        "monitor-facts.svg": _svg("agent monitor", _frame(None, Ui(page=Page.FACTS)), WIDTH),
        "rate-curve.svg": _svg("agent facts show", Text("\n".join(curve)), CURVE_WIDTH),
    }


def _frame(observations: int | None, ui: Ui) -> Frame:
    observed = list(read(RECORDING))[:observations]
    _, frame = one_frame(observed, Look(width=WIDTH, height=HEIGHT, now=observed[-1].at), ui)
    return frame


def _facts() -> list[Fact]:
    """Those of the recording, as they were in the end, in the order taught."""
    observed = list(read(RECORDING))
    state, _ = one_frame(observed, Look(width=WIDTH, height=HEIGHT, now=observed[-1].at))
    return sorted(state.facts.values(), key=lambda fact: fact.position)


def _svg(title: str, shown: RenderableType, width: int) -> str:
    console = Console(
        file=io.StringIO(), record=True, width=width, force_terminal=True, color_system="truecolor"
    )
    console.print(shown)
    svg = console.export_svg(title=title, unique_id="monitor")
    return FONT_FACE.sub("", svg).replace("Fira Code", FONTS).replace(f"{FONTS}, monospace", FONTS)


# --- HTML reports ---------------------------------------------------------------------------------


def take_pages() -> None:
    """Makes a report of each kind and takes its picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _server(folder / "data") as server:
            for fact in _facts():
                _agent("teach", fact.question, fact.answer, *LARGE_STEPS, *server)
            _agent("teach", "Sky?", "Piano", "--wait", *LARGE_STEPS, *server)  # after all others
            _agent("eval", "--suite", "probes", *server)
            _agent("report", "--out", str(folder / "report.html"), *server)
        _take(folder / "report.html", PICTURES / "report.png")
        run = folder / "paper"
        _agent("eval", "--suite", "paper", "--scale", "smoke", *TINY, "--out", run)
        _take(run / "report.html", PICTURES / "paper-report.png")


@contextmanager
def _server(data: Path) -> Iterator[tuple[str, str]]:
    """A server with the model `tiny`; the options that lead a command to it."""
    to = ("--server", ADDRESS)
    serving = subprocess.Popen(
        _command("serve", *TINY, "--data", data, "--listen", ADDRESS, *ROUGH)
    )
    try:
        _agent("status", "--wait", "--timeout", str(START_SECONDS), *to)
        yield to
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.wait(START_SECONDS)


def _take(page: Path, picture: Path) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"no browser: install one of {', '.join(BROWSERS)}")
    subprocess.run(
        [
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            f"--window-size={PAGE_WIDTH},{PAGE_HEIGHT}",
            f"--screenshot={picture}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
    )
    # A page has few colours: a palette makes it a fifth as large.
    Image.open(picture).convert("RGB").quantize(COLOURS).save(picture, optimize=True)


def _agent(*arguments: str | Path) -> None:
    subprocess.run(_command(*arguments), check=True, stdout=subprocess.DEVNULL)


def _command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "agent", *map(str, arguments)]


if __name__ == "__main__":
    main()
