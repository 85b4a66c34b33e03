"""The log: one line a record, as text or as JSON.

What is logged while a fact is learned carries its id: code binds ids with `bound`, and logs with
the standard library.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from agent.config import LogFormat
from agent.printable import escaped


def configure(form: LogFormat, **always: str) -> None:
    """Makes every logger of the process write to standard error, from INFO on.

    Args:
        form: text or JSON.
        **always: keys that every record carries.
    """

    def with_keys(_: WrappedLogger, __: str, record: EventDict) -> EventDict:
        return {**record, **always}

    known: Sequence[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.contextvars.merge_contextvars,
        with_keys,
    ]
    rendered: Sequence[Processor] = {
        LogFormat.TEXT: (
            structlog.processors.TimeStamper("%Y-%m-%d %H:%M:%S", utc=False),
            structlog.processors.format_exc_info,
            _for_people,
        ),
        LogFormat.JSON: (
            structlog.processors.TimeStamper("iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(default=str),
        ),
    }[form]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=known,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def bound(**ids: str | int) -> AbstractContextManager[None]:
    """Adds ids to the records of this task, and of tasks that it starts, inside the block."""
    return structlog.contextvars.bound_contextvars(**ids)


def _for_people(_: WrappedLogger, __: str, record: EventDict) -> str:
    """`time LEVEL logger: message key=value`, then the traceback, if there is one."""
    time, level = record.pop("timestamp"), record.pop("level")
    logger, message = record.pop("logger"), record.pop("event")
    traceback = record.pop("exception", None)
    line = f"{time} {level.upper()} {logger}: {escaped(str(message))}"
    for key, value in sorted(record.items()):
        line += f" {key}={_quoted(escaped(str(value)))}"
    lines = traceback.splitlines() if traceback else ()
    return "\n".join([line, *map(escaped, lines)])


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text or not text else text
