"""How every command ends: an exit code, and if it went wrong, one line that says what to do."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from agent.cli.output import messages, shown
from agent.errors import AgentError, MissingDeviceError
from memory_store.errors import MemoryStoreError

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
EXIT_CODES = {
    DONE: "done ('agent serve': stopped in good order, by Ctrl-C too)",
    FAILED: "it went wrong, or a fact was not learned",
    WRONG_USAGE: "wrong usage",
    74: "'agent serve': the disk failed under it",
    INTERRUPTED: "interrupted by Ctrl-C",
}


class CommandLine(TyperGroup):
    """The group of all commands; with `--debug` errors keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs a command; what it raises becomes an exit code.

        Raises:
            typer.Exit: with the code.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            messages.print("interrupted", style="yellow")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader left (as in `agent facts list | head`): nothing more to say.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from None
        except (typer.Exit, typer.Abort, TyperException):
            raise  # typer's own ways to end
        except Exception as error:  # the outermost guard of the command line
            if ctx.params.get("debug"):
                raise
            _tell(error)
            wrong = isinstance(error, MissingDeviceError)
            raise typer.Exit(WRONG_USAGE if wrong else FAILED) from None


def _tell(error: Exception) -> None:
    """One line, and what to do next."""
    said = " ".join(str(error).split())
    if not isinstance(error, (AgentError, MemoryStoreError)):
        said = (
            f"{type(error).__name__}: {said} (unexpected: 'agent --debug COMMAND' shows where;"
            " please report it)"
        )
    messages.print(shown(f"error: {said}"), style="red", soft_wrap=True)
