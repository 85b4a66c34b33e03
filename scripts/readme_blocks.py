"""Executes the fenced code blocks of Markdown files, so that what the README shows stays true.

Blocks of `bash` run with `bash -euo pipefail`, blocks of `python` with the interpreter of this
script; one after the other, in one temporary folder a file, with the environment's programs first
on PATH. Blocks of other languages are only shown. Blocks share files, not variables; what a block
leaves running is stopped with it. A comment right before a block changes what happens:

    <!-- not executed: REASON -->   the block is skipped
    <!-- background -->             the block (a server) runs until the file's last block is done;
                                    the next block has to wait until it is up
    <!-- output -->                 before a `text` block: the executed block before it must print
                                    exactly these lines; "..." stands for any text within a line,
                                    or, alone on a line, for any number of lines
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"(?P<indent> {0,3})(?P<fence>`{3,}|~{3,})\s*(?P<language>[^\s`]*)[^`]*")
COMMENT = re.compile(r"\s*<!--\s*(?P<text>.*?)\s*-->\s*")
NOT_EXECUTED = re.compile(r"not executed:\s*(?P<reason>\S.*)")
COMMANDS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
LOOKALIKES = {"sh", "shell", "console", "zsh", "py", "python3", "pycon", "{bash}", "{python}"}
GRACE_S = 10.0  # between asking a process to end and killing it
POLL_S = 0.05


class BlockError(Exception):
    """A block is malformed, failed, or printed something else than the file says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A fenced code block that is to be executed, or skipped for a reason.

    Attributes:
        path: the file that it is in, as given.
        line: of its first line of code, from 1.
        language: `bash` or `python`.
        code: its text, without the fences.
        skip_reason: why it is not executed; None if it is.
        background: whether it runs until the end of the file.
        output: what it must print; None if anything will do.
    """

    path: str
    line: int
    language: str
    code: str
    skip_reason: str | None = None
    background: bool = False
    output: str | None = None

    @property
    def name(self) -> str:
        """Where it is and how it starts: `README.md:12 bash: agent serve`."""
        lines = [line for line in self.code.splitlines() if line.strip()]
        first = next((line for line in lines if not line.lstrip().startswith("#")), "(empty)")
        first = first if len(first) <= 60 else first[:57] + "..."
        return f"{self.path}:{self.line} {self.language}: {first}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fenced:
    """A fenced block of any language with the comments right before it."""

    line: int
    language: str
    code: str
    comments: tuple[str, ...]


def fenced_blocks(text: str, path: str) -> Iterator[Fenced]:
    """Yields the fenced blocks of a Markdown text in order."""
    comments: list[str] = []
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        if opening := FENCE.fullmatch(line):
            code: list[str] = []
            closing = re.compile(rf" {{0,3}}{opening['fence']}{opening['fence'][0]}*\s*")
            for _, inner in lines:
                if closing.fullmatch(inner):
                    break
                indent = len(inner) - len(inner.lstrip(" "))
                code.append(inner[min(indent, len(opening["indent"])) :])
            else:
                raise BlockError(f"{path}:{number}: this code block is never closed")
            yield Fenced(
                line=number + 1,
                language=opening["language"],
                code="\n".join(code) + "\n",
                comments=tuple(comments),
            )
            comments = []
        elif comment := COMMENT.fullmatch(line):
            comments.append(comment["text"])
        elif line.strip():
            comments = []


def parse(text: str, path: str) -> list[Block]:
    """Returns the blocks of a Markdown text that are to be executed or skipped.

    Raises:
        BlockError: a block or the comment before it makes no sense; the message has the line.
    """
    blocks: list[Block] = []
    for fenced in fenced_blocks(text, path):
        where = f"{path}:{fenced.line}"
        reasons = [found["reason"] for c in fenced.comments if (found := NOT_EXECUTED.fullmatch(c))]
        if not reasons and any(c.startswith("not executed") for c in fenced.comments):
            raise BlockError(f"{where}: write why: <!-- not executed: REASON -->")
        if "output" in fenced.comments:
            if fenced.language != "text":
                raise BlockError(f"{where}: expected output goes into a block of language text")
            if not blocks or blocks[-1].background or blocks[-1].output is not None:
                raise BlockError(f"{where}: there is no block before that would print this output")
            last = blocks.pop()
            blocks.append(
                Block(
                    path=path,
                    line=last.line,
                    language=last.language,
                    code=last.code,
                    skip_reason=last.skip_reason,
                    output=fenced.code,
                )
            )
        elif fenced.language in COMMANDS:
            blocks.append(
                Block(
                    path=path,
                    line=fenced.line,
                    language=fenced.language,
                    code=fenced.code,
                    skip_reason=reasons[0] if reasons else None,
                    background="background" in fenced.comments,
                )
            )
        elif fenced.language.lower() in LOOKALIKES and not reasons:
            raise BlockError(
                f"{where}: blocks of '{fenced.language}' would never be executed: call it bash or "
                "python, or put <!-- not executed: REASON --> before it"
            )
        elif "background" in fenced.comments:
            raise BlockError(f"{where}: only bash and python blocks can run in the background")
    return blocks


def output_matches(expected: str, printed: str) -> bool:
    """Whether the printed lines are the expected ones, where "..." stands for anything."""
    pattern = ""
    for line in normalized(expected):
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += "[^\n]*?".join(map(re.escape, line.split("..."))) + r"\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in normalized(printed))) is not None


def normalized(text: str) -> list[str]:
    """The lines of a text without trailing white space and trailing empty lines."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


class Running:
    """A block's process group, whose output goes to files in a scratch folder."""

    def __init__(self, block: Block, folder: Path, scratch: Path, env: Mapping[str, str]) -> None:
        self.block = block
        self._stdout = scratch / f"{block.line}.out"
        self._stderr = scratch / f"{block.line}.err"
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._process = subprocess.Popen(
                [*COMMANDS[block.language], block.code],
                cwd=folder,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def returncode(self) -> int | None:
        """The exit status; None while the block runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int:
        """Returns the exit status; raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout_s)

    def stop(self) -> None:
        """Ends what is left of the process group: asks, waits, then kills."""
        deadline = time.monotonic() + GRACE_S
        self._signal(signal.SIGTERM)
        while self._alive() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _alive(self) -> bool:
        self._process.poll()  # reap, or the dead leader counts as a member of its group
        return self._signal(0)

    def _signal(self, number: int) -> bool:
        """Signals the group; returns whether it has members."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
            return True
        return False

    def stdout(self) -> str:
        return self._stdout.read_text(errors="replace")

    def transcript(self) -> str:
        """All that was printed, indented, for a report of a failure."""
        text = ""
        for title, file in [("stdout", self._stdout), ("stderr", self._stderr)]:
            if printed := file.read_text(errors="replace").rstrip():
                text += f"\n  {title}:\n" + "\n".join(f"    {x}" for x in printed.splitlines())
        return text or "\n  (it printed nothing)"


def execute(blocks: Sequence[Block], timeout_s: float) -> None:
    """Executes the blocks of one file in one temporary folder, and says how each went.

    Raises:
        BlockError: a block failed; all that was started has been stopped.
    """
    servers: list[Running] = []
    with tempfile.TemporaryDirectory(prefix="readme-") as name:
        folder, scratch = Path(name, "work"), Path(name, "printed")
        folder.mkdir()
        scratch.mkdir()
        env = environment()
        try:
            for block in blocks:
                if block.skip_reason is not None:
                    print(f"{block.name}  not executed: {block.skip_reason}", flush=True)
                    continue
                print(block.name, end="  ", flush=True)
                running = Running(block, folder, scratch, env)
                if block.background:
                    servers.append(running)
                    print("started in the background", flush=True)
                else:
                    start = time.monotonic()
                    finish(running, timeout_s)
                    print(f"ok, {time.monotonic() - start:.1f} s", flush=True)
            for server in servers:
                if server.returncode:
                    raise BlockError(f"the background block ended with {server.returncode}")
        except BlockError as error:
            parts = [str(error)]
            parts += [f"in the background, {s.block.name}{s.transcript()}" for s in servers]
            raise BlockError("\n".join(parts)) from None
        finally:
            for server in reversed(servers):
                server.stop()


def environment() -> dict[str, str]:
    """The environment of the blocks: this interpreter's programs first, plain output."""
    programs = Path(sys.executable).parent  # not resolved: it is a link out of the environment
    path = os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)])
    plain = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100"}
    inherited = {k: v for k, v in os.environ.items() if k not in {"FORCE_COLOR", "PYTHONHOME"}}
    return {**inherited, **plain, "PATH": path, "VIRTUAL_ENV": sys.prefix}


def finish(running: Running, timeout_s: float) -> None:
    """Waits for a block; raises BlockError unless it succeeds and prints what it should."""
    block = running.block
    status = None
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = running.wait(timeout_s)
    finally:
        running.stop()
    if status is None:
        raise BlockError(f"still running after {timeout_s:g} s{running.transcript()}")
    if status != 0:
        raise BlockError(f"ended with {status}{running.transcript()}")
    if block.output is not None and not output_matches(block.output, running.stdout()):
        difference = difflib.unified_diff(
            normalized(block.output),
            normalized(running.stdout()),
            "the file says",
            "the block printed",
            lineterm="",
        )
        lines = "\n".join(f"  {line}" for line in difference)
        raise BlockError(f"printed something else:\n{lines}{running.transcript()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Executes the blocks of the files named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, default=[Path("README.md")], metavar="FILE")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="per block")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped then, too
    start = time.monotonic()
    executed = skipped = 0
    for file in options.files:
        try:
            blocks = parse(file.read_text(encoding="utf-8"), str(file))
            execute(blocks, options.timeout)
        except (BlockError, OSError, UnicodeDecodeError) as error:
            print(f"FAILED: {error}", flush=True)
            return 1
        skipped += sum(block.skip_reason is not None for block in blocks)
        executed += sum(block.skip_reason is None for block in blocks)
    seconds = time.monotonic() - start
    print(f"{executed} blocks executed, {skipped} not executed, in {seconds:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
