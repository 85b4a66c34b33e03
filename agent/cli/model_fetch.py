"""Prepares the loading of a model: checks the device, and fetches the files."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence

import typer

from agent.cli.output import messages, shown
from agent.errors import MissingDeviceError
from agent.models import catalog
from agent.python_command import python_command


async def prepare(model: str, device: str) -> None:
    """Prepares the start of a learner, while facts are already accepted.

    Raises:
        MissingDeviceError: there is no such device. Then the model is not fetched.
        typer.Exit: the model cannot be fetched; the reason is on standard error.
    """
    if device == "cuda":
        await _require_cuda()
    await fetch(model)


async def _require_cuda() -> None:
    """Checks in a separate process, because torch is large.

    Raises:
        MissingDeviceError: this machine has no CUDA device that torch can use.
    """
    asked = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    if await _ended(python_command("-c", asked), stderr=subprocess.DEVNULL):
        raise MissingDeviceError(
            "--device cuda: torch finds no CUDA device here: choose --device cpu, or see what"
            " 'agent doctor --device cuda' says"
        )


def fetch_if_missing(model: str) -> None:
    """Fetches the model with a progress bar; see `fetch`."""
    asyncio.run(fetch(model))


async def fetch(model: str) -> None:
    """Fetches the model with a progress bar, unless it is on this machine.

    Runs in a separate process, so that the server does not import torch.

    Raises:
        typer.Exit: it cannot be fetched; the reason is on standard error.
    """
    if await asyncio.to_thread(catalog.is_cached, catalog.resolve(model)):
        return
    messages.print(shown(f"Fetching {model}, which is not on this machine yet"))
    if code := await _ended(python_command("-m", "agent", "models", "pull", model)):
        raise typer.Exit(code)


async def _ended(command: Sequence[str], stderr: int | None = None) -> int:
    """Runs a program, and returns its exit code; ends it if the task is cancelled."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stderr=stderr
    )
    try:
        return await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
