"""A session as a file: one observation on each line, as a JSON object.

It uses the messages of the API, so a recording stays readable as long as they do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message

from agent.client.messages import STATUS
from agent.errors import AgentError
from agent.monitor.observations import (
    Connected,
    DetailSeen,
    EventSeen,
    FactsSeen,
    Lost,
    Observation,
    Refused,
    RetentionSeen,
    StatusSeen,
)
from agent.wire import codec
from continual.v1 import memory_pb2 as pb
from continual.v1 import model_pb2
from memory_store.vocabulary import RetentionPoint

AnyMessage = TypeVar("AnyMessage", bound=Message)


class RecordingError(AgentError):
    """A recording cannot be written or read."""


class Recorder:
    """Writes a recording, observation by observation.

    Args:
        path: a new file.

    Raises:
        RecordingError: it exists already, or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        try:
            # Private, as it holds the facts' texts.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        except FileExistsError:
            raise RecordingError(f"{path} exists already: name a new file with --record") from None
        except OSError as error:
            raise RecordingError(f"cannot write {path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        """Returns the recorder itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the file."""
        self._file.close()

    def write(self, seen: Observation) -> None:
        """Adds an observation.

        Raises:
            RecordingError: the file cannot be written.
        """
        try:
            self._file.write(encode(seen) + "\n")
            self._file.flush()  # complete up to here, however the monitor ends
        except OSError as error:
            raise RecordingError(f"cannot write {self._file.name}: {error.strerror}") from error


def read(path: Path) -> Iterator[Observation]:
    """Yields the observations of a recording, in order; skips an incomplete last line.

    Raises:
        RecordingError: the file cannot be read, or is no recording.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RecordingError(f"cannot read {path}: {reason}") from error
    # What follows the last newline is empty, or was cut off when the monitor was killed.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            yield decode(line)
        except (ValueError, KeyError, TypeError, AttributeError, ParseError) as error:
            raise RecordingError(
                f"line {number} of {path} is not part of a recording:"
                " name a file that 'agent monitor --record' wrote"
            ) from error


def encode(seen: Observation) -> str:
    """Returns one line, without its newline."""
    values = {"at": seen.at.isoformat(), **_content(seen)}
    if isinstance(seen, FactsSeen | DetailSeen):
        values["sequence"] = seen.sequence
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _content(seen: Observation) -> dict[str, Any]:
    match seen:
        case Connected():
            content = {"address": seen.address, "after_sequence": seen.after_sequence}
            return {"connected": content}
        case Lost():
            return {"lost": seen.reason}
        case Refused():
            return {"refused": seen.reason}
        case StatusSeen():
            return {"status": _object(STATUS.encode(seen.status))}
        case EventSeen():
            return {"event": _object(codec.EVENT.encode(seen.event))}
        case FactsSeen():
            facts = _objects(map(codec.FACT.encode, seen.facts))
            return {"all_facts" if seen.whole else "facts": facts}
        case RetentionSeen():
            points = {
                fact_id: [[p.model_version, p.probability, p.probed_at.isoformat()] for p in new]
                for fact_id, new in seen.points.items()
            }
            kind = "all_retention" if seen.whole else "retention"
            return {kind: {"ages": dict(seen.ages), "points": points}}
        case DetailSeen():
            return {
                "detail": {
                    "fact": _object(codec.FACT.encode(seen.fact)),
                    "updates": _objects(map(codec.UPDATE.encode, seen.updates)),
                    "probes": _objects(map(codec.PROBE.encode, seen.probes)),
                }
            }


def decode(line: str) -> Observation:
    """The inverse of `encode`; an invalid line raises various errors (see `read`)."""
    values = json.loads(line)
    at = datetime.fromisoformat(values.pop("at"))
    sequence = values.pop("sequence", 0)
    [(kind, content)] = values.items()
    match kind:
        case "connected":
            return Connected(
                at=at, address=content["address"], after_sequence=content["after_sequence"]
            )
        case "lost":
            return Lost(at=at, reason=content)
        case "refused":
            return Refused(at=at, reason=content)
        case "status":
            message = _message(content, model_pb2.GetStatusResponse())
            return StatusSeen(at=at, status=STATUS.decode(message))
        case "event":
            return EventSeen(at=at, event=codec.EVENT.decode(_message(content, pb.Event())))
        case "facts" | "all_facts":
            facts = (codec.FACT.decode(_message(fact, pb.Fact())) for fact in content)
            whole = kind == "all_facts"
            return FactsSeen(at=at, facts=tuple(facts), whole=whole, sequence=sequence)
        case "retention" | "all_retention":
            return _retention(at, content, whole=kind == "all_retention")
        case "detail":
            return _detail(at, content, sequence)
    raise ValueError(f"unknown observation {kind!r}")


def _retention(at: datetime, content: dict[str, Any], *, whole: bool) -> RetentionSeen:
    points = {
        fact_id: tuple(
            RetentionPoint(
                model_version=version, probability=p, probed_at=datetime.fromisoformat(time)
            )
            for version, p, time in new
        )
        for fact_id, new in content["points"].items()
    }
    return RetentionSeen(at=at, ages=content["ages"], points=points, whole=whole)


def _detail(at: datetime, content: dict[str, Any], sequence: int) -> DetailSeen:
    updates = (_message(update, pb.Update()) for update in content["updates"])
    probes = (_message(probe, pb.Probe()) for probe in content["probes"])
    return DetailSeen(
        at=at,
        fact=codec.FACT.decode(_message(content["fact"], pb.Fact())),
        updates=tuple(map(codec.UPDATE.decode, updates)),
        probes=tuple(map(codec.PROBE.decode, probes)),
        sequence=sequence,
    )


def _object(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def _objects(messages: Iterable[Message]) -> list[dict[str, Any]]:
    return [_object(message) for message in messages]


def _message(content: dict[str, Any], message: AnyMessage) -> AnyMessage:
    # Ignores fields of a newer release.
    return ParseDict(content, message, ignore_unknown_fields=True)
