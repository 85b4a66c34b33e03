"""The store child under strace: what it wrote, synced and acknowledged, in order."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from memory_store.store import MemoryStore

ROOT = Path(__file__).parents[2]
TRACED = "openat,pwrite64,write,fsync,fdatasync,ftruncate,unlink,rename"
LONGEST_SECONDS = 60.0

# 12 pwrite64(5</folder/memory.db-wal>, "\x37..."..., 32, 0) = 32
LINE = re.compile(r"^(?P<pid>\d+) +(?P<rest>.*)$")
UNFINISHED = " <unfinished ...>"
RESUMED = re.compile(r"^<\.\.\. (?P<call>\w+) resumed>(?P<rest>.*)$")
CALL = re.compile(r"^(?P<call>\w+)\((?P<arguments>.*?)\)? += (?P<result>-?\d+)(?P<more>.*)$")
ON_FILE = re.compile(r"^\d+<(?P<path>[^>]*)>(?:, (?P<rest>.*))?$")
BUFFER = re.compile(r'^"(?P<hex>(?:\\x[0-9a-f]{2})*)", \d+(?:, (?P<offset>\d+))?$')
CREATED = re.compile(r"^AT_FDCWD(?:<[^>]*>)?, \"(?P<hex>(?:\\x[0-9a-f]{2})*)\", [^,]*O_CREAT")


@dataclass(frozen=True, slots=True)
class Call:
    """A system call on a file; `offset` is the new size for `ftruncate`."""

    name: str
    path: str
    content: bytes = b""
    offset: int = 0
    failed: bool = False


@functools.cache
def why_not() -> str:
    """Why nothing can be traced here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"strace does not work: {tried.stderr.decode()[:100]}"


@dataclass(frozen=True, slots=True)
class Traced:
    """What a child did until its end."""

    calls: list[Call]
    acknowledged: list[str]
    exit_code: int


def trace_child(
    folder: Path,
    *,
    synchronous: str = "FULL",
    tasks: int = 4,
    facts: int = 40,
    pages: int = 60,
    inject: Sequence[str] = (),
) -> Traced:
    """Runs the child on `folder/memory.db`, which is made before, and kills it when it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    with MemoryStore.open(folder / "memory.db"):
        pass
    log, out = folder.with_suffix(".strace"), folder.with_suffix(".out")
    injected = [word for rule in inject for word in ("-e", f"inject={rule}")]
    arguments = [str(folder / "memory.db"), synchronous, str(pages), str(tasks), str(facts)]
    command = [
        *("strace", "-f", "-y", "-xx", "-s", "8192", "-e", f"trace={TRACED}", *injected),
        *("-o", str(log), sys.executable, "-m", "tests.faults.store_child", *arguments),
    ]
    with (
        out.open("wb") as stdout,
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child,
    ):
        assert child.stdout is not None
        told = []
        for line in child.stdout:
            told.append(line.decode().strip())
            stdout.write(line)
            if told[-1] == "done":
                _kill_traced(log)
        exit_code = child.wait(LONGEST_SECONDS)
    acknowledged = [line for line in told if line.startswith(("accepted", "learned"))]
    return Traced(list(_calls(log)), acknowledged, exit_code)


def _kill_traced(log: Path) -> None:
    """Ends the process that strace started: the first one in its log."""
    with log.open() as lines:
        pid = int(lines.readline().split()[0])
    os.kill(pid, signal.SIGKILL)


def _calls(log: Path) -> Iterator[Call]:
    """In order: writes when they begin, syncs when they are over."""
    begun: dict[str, str] = {}
    for line in log.read_text().splitlines():
        whole = LINE.match(line)
        assert whole is not None, line
        pid, rest = whole["pid"], whole["rest"]
        if rest.endswith(UNFINISHED):
            begun[pid] = rest.removesuffix(UNFINISHED)
            if not begun[pid].startswith(("fsync", "fdatasync")):
                yield from _call(begun.pop(pid).rstrip(") ") + ") = 0")
        elif resumed := RESUMED.match(rest):
            if pid in begun:
                yield from _call(begun.pop(pid) + resumed["rest"])
        else:
            yield from _call(rest)


def _call(text: str) -> Iterator[Call]:
    called = CALL.match(text)
    if called is None:  # a signal, or the end
        return
    name, arguments, failed = called["call"], called["arguments"], called["result"].startswith("-")
    if name == "openat":
        if (created := CREATED.match(arguments)) and not failed:
            yield Call("create", _bytes(created["hex"]).decode())
        return
    on_file = ON_FILE.match(arguments)
    if on_file is None:
        return
    path, rest = _path(on_file["path"]), on_file["rest"] or ""
    if name in ("write", "pwrite64"):
        buffer = BUFFER.match(rest)
        assert buffer is not None, text[-200:]
        offset = int(buffer["offset"] or 0)
        yield Call(name, path, _bytes(buffer["hex"]), offset, failed)
    elif name == "ftruncate":
        yield Call(name, path, offset=int(rest), failed=failed)
    elif name in ("fsync", "fdatasync"):
        yield Call("sync", path, failed=failed)


def _bytes(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal.replace("\\x", ""))


def _path(text: str) -> str:
    return _bytes(text).decode() if text.startswith("\\x") else text
