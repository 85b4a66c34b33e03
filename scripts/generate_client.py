"""Generates the blocking client from the one for asyncio: the same methods without `await`.

python scripts/generate_client.py [--check]

With --check it writes nothing, and fails if the committed file is not what would be generated.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE, TARGET = (ROOT / "agent" / "client" / name for name in ("async_client.py", "client.py"))

# Text that differs: each must occur exactly once.
TEXTS = {
    "The client for asyncio.": "The client.",
    "`client.py` is generated from this file by `scripts/generate_client.py`.": (
        "Generated from `async_client.py` by `scripts/generate_client.py`: do not edit."
    ),
    "server, for the event loop it is made in. Close it, or use it in a block.": (
        "server. Thread-safe. Close it, or use it in a `with` block."
    ),
    " A method that yields is an asynchronous iterator. A task that is cancelled\n"
    "    cancels its call; facts that were accepted before stay accepted.": "",
    "Iterable[NewFact] | AsyncIterable[NewFact]": "Iterable[NewFact]",
    "    AsyncIterable,\n": "",
    "AsyncGenerator[Event, None]": "Generator[Event, None, None]",
}
# Words that differ, everywhere.
WORDS = {
    r"\(await (.+)\)\.": r"\1.",
    r"\bawait ": "",
    r"\basync (?=def|for|with)": "",
    r"\bAsync(?=Client|Connection|Generator|Iterator)": "",
    r"\b__a(?=enter__|exit__)": "__",
    r"\baclosing\b": "closing",
    r"\basyncio\b": "time",
}


def generate(source: str) -> str:
    """The blocking client, formatted.

    Raises:
        SystemExit: a text that is to be replaced is not there.
    """
    for old, new in TEXTS.items():
        if source.count(old) != 1:
            raise SystemExit(f"{SOURCE} must have this once: {old!r}")
        source = source.replace(old, new)
    for pattern, new in WORDS.items():
        source = re.sub(pattern, new, source)
    name = ["--stdin-filename", str(TARGET)]
    sorted_imports = _ruff(["check", "--quiet", "--select", "I", "--fix", *name, "-"], source)
    return _ruff(["format", *name, "-"], sorted_imports)


def _ruff(arguments: list[str], text: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments]
    return subprocess.run(
        command, input=text, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
    ).stdout


def main() -> None:
    """Writes the file, or compares it."""
    generated = generate(SOURCE.read_text())
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(generated)
    elif TARGET.read_text() != generated:
        raise SystemExit(f"{TARGET} is stale: run {Path(__file__).name} and commit the result")


if __name__ == "__main__":
    main()
