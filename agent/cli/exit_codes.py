"""The end of every command: an exit code, and after an error one line that says what to do."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from agent.cli.json_errors import USAGE, report_error, report_failure
from agent.cli.output import json_state, messages, shown
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

UNEXPECTED = "'agent --debug COMMAND' shows where; please report it"


class CommandLine(TyperGroup):
    """The group of all commands. With `--debug`, errors keep their traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the program's own options, before any command."""
        json_state.asked = json_state.printed = False
        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            _report_usage(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Runs a command, and turns what it raises into an exit code.

        Raises:
            typer.Exit: with the code.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            # Whoever keeps something of the work says so in the message.
            said = str(interrupt) or "interrupted"
            messages.print(shown(said), style="yellow", soft_wrap=True)
            report_failure(INTERRUPTED, "INTERRUPTED", "interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader left, as in `agent facts list | head`.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from None
        except typer.Exit as ended:
            if ended.exit_code == INTERRUPTED:
                report_failure(INTERRUPTED, "INTERRUPTED", "interrupted")
            elif ended.exit_code:
                report_failure(ended.exit_code, "FAILED", "why is on standard error")
            raise
        except TyperException as error:
            _report_usage(error)
            raise
        except typer.Abort:
            report_failure(FAILED, "ABORTED", "aborted")
            raise
        except Exception as error:  # the outermost guard of the command line
            code = WRONG_USAGE if isinstance(error, MissingDeviceError) else FAILED
            _report(error, code, debug=ctx.params.get("debug", False))
            if ctx.params.get("debug"):
                raise
            raise typer.Exit(code) from None


def _report(error: Exception, code: int, *, debug: bool) -> None:
    """Prints one line, unless `debug` shows the traceback, and the error object."""
    said, hint = " ".join(str(error).split()), ""
    line = f"error: {said}"
    if not isinstance(error, (AgentError, MemoryStoreError)):
        said, hint = f"{type(error).__name__}: {said}", UNEXPECTED
        line = f"error: {said} (unexpected: {hint})"
    if not debug:
        messages.print(shown(line), style="red", soft_wrap=True)
    report_error(code, error, said, hint)


def _report_usage(error: TyperException) -> None:
    """Prints what typer reports on standard error as an error object."""
    ctx: Any = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "agent"
    said = " ".join(error.format_message().split())
    report_failure(error.exit_code, USAGE, said, hint=f"see '{path} --help'")
