"""Makes the README's picture of the monitor from a recording of a real run.

    python scripts/monitor_picture.py

`docs/pictures/monitor.jsonl` was kept by `agent monitor --record` while the ten facts of table 1 of
Curt (2024) were taught to `agent serve --model smollm2-135m` on a CPU.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from agent.monitor.lines import Frame
from agent.monitor.panes import Look
from agent.monitor.recording import read
from agent.monitor.run import one_frame

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
RECORDING, PICTURE = PICTURES / "monitor.jsonl", PICTURES / "monitor.svg"
WIDTH, HEIGHT = 100, 30
# So many observations were made: a fact is in the middle of its steps.
SEEN = 257
# Nothing is fetched by who looks at the picture: any font of fixed width will do.
FONT_FACE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
FONTS = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def main() -> None:
    """Writes the picture."""
    PICTURE.write_text(picture(), encoding="utf-8")


def picture() -> str:
    """The picture as SVG."""
    console = Console(
        file=io.StringIO(), record=True, width=WIDTH, force_terminal=True, color_system="truecolor"
    )
    console.print(moment())
    svg = console.export_svg(title="agent monitor", unique_id="monitor")
    return FONT_FACE.sub("", svg).replace("Fira Code", FONTS).replace(f"{FONTS}, monospace", FONTS)


def moment() -> Frame:
    """What was to be seen then."""
    seen = list(read(RECORDING))[:SEEN]
    _, frame = one_frame(seen, Look(width=WIDTH, height=HEIGHT, now=seen[-1].at))
    return frame


if __name__ == "__main__":
    main()
