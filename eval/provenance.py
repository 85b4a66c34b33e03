"""Where a result comes from: what you must know to reproduce it."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from agent.learner.environment import describe_environment
from agent.models.loading import LoadedModel

PACKAGE = "continual-agent"


def provenance(loaded: LoadedModel) -> dict[str, Any]:
    """The code and the environment: commit, release, model, revision, device, versions."""
    return {"release": _release(), "commit": commit(), **describe_environment(loaded)}


def commit() -> str | None:
    """The commit of this source, with `+changes` if files differ from it; None if unknown.

    Unknown where the package was installed without its repository.
    """
    here = Path(__file__).parent
    # A package may be installed inside another repository.
    if _git(here, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    head = _git(here, "rev-parse", "HEAD")
    changes = _git(here, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if head and changes else head


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _release() -> str | None:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return None
