"""A pair that does not fit is an error when it is compiled, not when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum

import pytest

from agent.wire.mapper import MappingError, NotSent, Pair, Special, pair
from continual.learner.v1 import learner_pb2
from continual.v1 import memory_pb2 as pb
from continual.v1 import model_pb2
from memory_store.vocabulary import RatePoint


@dataclass(frozen=True)
class Ages:
    youngest: int
    oldest: int
    held: int
    asked: int = 0


@dataclass(frozen=True)
class Less:
    youngest: int
    oldest: int
    held: int


@dataclass(frozen=True)
class More(Ages):
    forgotten: int = 0


@dataclass(frozen=True)
class Texts:
    youngest: str
    oldest: int
    held: int
    asked: int


@dataclass(frozen=True)
class Nullable:
    youngest: int | None  # the message cannot tell unset from 0
    oldest: int
    held: int
    asked: int


@dataclass(frozen=True)
class Points:
    points: tuple[RatePoint, ...]


class TwoStates(StrEnum):
    QUEUED = "queued"
    LEARNING = "learning"


@dataclass(frozen=True)
class Count:
    state: TwoStates
    count: int


AGES = model_pb2.AgeRetention


@pytest.mark.parametrize(
    ("compiled", "named"),
    [
        (lambda: pair(Less, AGES), "asked"),
        (lambda: pair(More, AGES), "forgotten"),
        (lambda: pair(Texts, AGES), "youngest"),
        (lambda: pair(Nullable, AGES), "youngest"),
        (lambda: pair(Ages, AGES, not_read=("asked",)), "asked"),
        (lambda: pair(Ages, AGES, {"unknown": NotSent()}), "unknown"),
        (lambda: pair(Ages, AGES, {"held": "unknown"}), "unknown"),
        (lambda: pair(Ages, AGES, {"held": NotSent(0)}), "held"),
        (lambda: pair(Count, model_pb2.StateCount), "FORGOTTEN"),
        # The nested one does not fit.
        (lambda: pair(Points, model_pb2.FactRetention, not_read=("fact_id", "age")), "RatePoint"),
    ],
    ids=range(10),
)
def test_what_is_not_declared_is_an_error(compiled: Callable[[], object], named: str) -> None:
    with pytest.raises(MappingError, match=named):
        compiled()


def test_what_is_declared_is_mapped_or_left_out() -> None:
    less = pair(Less, AGES, not_read=("asked",))
    assert less.encode(Less(1, 2, 3)) == AGES(youngest=1, oldest=2, held=3)
    assert less.decode(AGES(youngest=1, oldest=2, held=3, asked=4)) == Less(1, 2, 3)
    more = pair(More, AGES, {"forgotten": NotSent(7)})
    assert more.encode(More(1, 2, 3, 4, forgotten=5)) == AGES(youngest=1, oldest=2, held=3, asked=4)
    assert more.decode(AGES()) == More(0, 0, 0, 0, forgotten=7)
    texts = pair(Texts, AGES, {"youngest": Special("youngest", int, str)})
    assert texts.encode(Texts("8", 0, 0, 0)) == AGES(youngest=8)
    assert texts.decode(AGES(youngest=8)) == Texts("8", 0, 0, 0)
    swapped = pair(Ages, AGES, {"held": "asked", "asked": "held"})
    assert swapped.encode(Ages(1, 2, 3, 4)) == AGES(youngest=1, oldest=2, asked=3, held=4)


class Kind(Enum):
    FORGET = 1
    ROLLBACK = 2


@dataclass(frozen=True)
class Everything:
    id: int
    kind: Kind
    state: str
    fact_id: str
    erase: bool
    request_time: datetime
    finish_time: datetime | None


def test_enums_times_and_absent_values() -> None:
    left = ("to_version", "message", "proof_json", "done_facts", "total_facts")
    state = Special("state", pb.OperationState.Value, pb.OperationState.Name)
    operation = pair(Everything, pb.Operation, {"state": state}, not_read=left)
    requested = datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    record = Everything(
        id=2**62,
        kind=Kind.ROLLBACK,
        state="OPERATION_STATE_DONE",
        fact_id="",
        erase=True,
        request_time=requested,
        finish_time=None,
    )
    message = operation.encode(record)
    assert message.kind == pb.OPERATION_KIND_ROLLBACK
    assert not message.HasField("finish_time")
    assert message.request_time.ToDatetime(tzinfo=UTC) == requested
    assert operation.decode(message) == record


@dataclass(frozen=True)
class Numbers:
    predictor: tuple[float, ...] | None


@dataclass(frozen=True)
class Software:
    environment: Mapping[str, str]


def all_but(pb_class: type, name: str) -> list[str]:
    fields = pb_class.DESCRIPTOR.fields_by_name  # type: ignore[attr-defined]
    return [field for field in fields if field != name]


def test_repeated_fields_and_maps() -> None:
    numbers: Pair[Numbers, learner_pb2.Policy] = pair(
        Numbers, learner_pb2.Policy, not_read=all_but(learner_pb2.Policy, "predictor")
    )
    for predictor in (None, (0.5, -1.0)):
        assert numbers.decode(numbers.encode(Numbers(predictor))) == Numbers(predictor)
    software = pair(Software, pb.Update, not_read=all_but(pb.Update, "environment"))
    assert software.decode(software.encode(Software({"torch": "2"}))) == Software({"torch": "2"})
