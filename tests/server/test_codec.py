"""Every field of every record survives the way through its message."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from agent.client import messages
from agent.client.types import OperationStatus, Score
from agent.teaching import rates
from agent.teaching.consolidation import ConsolidationSettings, Epoch
from agent.teaching.limits import TeachingLimits
from agent.teaching.plan import LessonPlan
from agent.teaching.types import (
    Answer,
    LearnerDescription,
    ReplayedUpdate,
)
from agent.wire import codec, learner_codec
from agent.wire.mapper import AnyPair, Pair
from continual.v1 import memory_pb2 as pb
from memory_store.vocabulary import (
    Fact,
    FactState,
    Guards,
    Policy,
    Probe,
    Step,
    Update,
)

UINT32, INT64 = 2**32 - 1, 2**63 - 1
GUARDS = st.builds(Guards, **{field.name: st.integers(0, UINT32) for field in fields(Guards)})
# Clients choose no guards; between server and learner they are part of the policy.
PUBLIC_POLICIES, POLICIES = (
    st.builds(
        Policy,
        name=st.sampled_from(sorted(rates.POLICIES)),
        learning_rate=st.floats(rates.MIN_LEARNING_RATE, rates.MAX_LEARNING_RATE),
        max_steps=st.integers(1, rates.MAX_STEPS),
        guards=guards,
    )
    for guards in (st.none(), st.none() | GUARDS)
)
FIELDS: dict[tuple[type, str], st.SearchStrategy[Any]] = {
    **{
        (ConsolidationSettings, name): st.integers(0, UINT32)
        for name in ("epochs", "facts", "neighbors", "ordinary", "texts", "warmup_steps")
    },
    (Epoch, "number"): st.integers(1, UINT32),
    (LessonPlan, "again"): st.just(False),  # only the server knows it
    (Fact, "position"): st.just(0),  # only the store knows it
    (Fact, "tried_policy"): st.none(),  # for learning again, which clients do not
    (Fact, "failed_attempts"): st.integers(0, UINT32),
    (Update, "policy"): st.none(),  # for the same
    (LearnerDescription, "max_tokens"): st.integers(0, UINT32),
    (OperationStatus, "proof"): st.dictionaries(st.text(max_size=8), st.integers(), max_size=3),
    (Score, "tokens"): st.integers(0, UINT32),
    (TeachingLimits, "most_steps"): st.integers(0, UINT32),
    (Step, "answer_tokens"): st.integers(0, UINT32),
    (Step, "candidates"): st.integers(0, UINT32),
    (Answer, "samples"): st.integers(0, UINT32),
    (Answer, "correct_samples"): st.integers(0, UINT32),
    (Probe, "samples"): st.integers(0, UINT32),
    (Probe, "correct_samples"): st.integers(0, UINT32),
}
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=8),
    int: st.integers(0, INT64),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),  # NaN equals nothing, itself included
    datetime: st.datetimes(timezones=st.just(UTC)),
    Policy: PUBLIC_POLICIES,
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """All values of a type, so that a field added later is tested without a change here."""
    if hint in SIMPLE:
        return SIMPLE[hint]
    if dataclasses.is_dataclass(hint):
        return records(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin in (dict, Mapping):
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    if origin is types.UnionType:
        return st.one_of(*map(values, arguments))
    assert hint is type(None), hint
    return st.none()


def records(kind: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    return st.builds(
        kind,
        **{
            field.name: FIELDS[kind, field.name]
            if (kind, field.name) in FIELDS
            else values(hints[field.name])
            for field in fields(kind)
        },
    )


def pairs_of(module: object) -> dict[type, AnyPair]:
    return {made.record: made for made in vars(module).values() if isinstance(made, Pair)}


PUBLIC, INTERNAL = pairs_of(codec) | pairs_of(messages), pairs_of(learner_codec)


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_record_survives_the_public_messages(kind: type, data: st.DataObject) -> None:
    pair = PUBLIC[kind]
    record = data.draw(values(kind))
    sent = pair.encode(record).SerializeToString()
    assert pair.decode(pair.message.FromString(sent)) == record


@pytest.mark.parametrize("kind", INTERNAL, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_record_survives_the_messages_to_the_learner(kind: type, data: st.DataObject) -> None:
    pair = INTERNAL[kind]
    record = data.draw(POLICIES if kind is Policy else values(kind))
    sent = pair.encode(record).SerializeToString()
    assert pair.decode(pair.message.FromString(sent)) == record


@given(policy=st.none() | POLICIES, accept_drift=st.booleans(), data=st.data())
def test_a_row_to_be_replayed_survives_with_all_that_its_steps_are_made_from(
    policy: Policy | None, accept_drift: bool, data: st.DataObject
) -> None:
    row = data.draw(records(ReplayedUpdate))
    row = replace(row, update=replace(row.update, policy=policy))
    message = learner_codec.encode_replayed(row, accept_drift)
    message = type(message).FromString(message.SerializeToString())
    assert message.accept_drift == accept_drift
    found = learner_codec.decode_replayed(message)
    assert (found.example, found.rehearsed) == (row.example, row.rehearsed)
    for name in ("model_version", "parent_version", "policy", "steps", "digest_after"):
        assert getattr(found.update, name) == getattr(row.update, name)
    assert (found.update.algorithm, found.update.environment) == (
        row.update.algorithm,
        row.update.environment,
    )


def test_no_state_stands_for_unspecified() -> None:
    assert set(codec.STATE_FROM_PB.values()) == set(FactState)
    assert 0 not in codec.STATE_FROM_PB


@pytest.mark.parametrize("number", [0, 1000])
def test_a_state_of_a_newer_release_is_an_error(number: int) -> None:
    with pytest.raises(KeyError):
        codec.FACT.decode(ParseDict({"state": number}, pb.Fact()))
    with pytest.raises(KeyError):
        codec.EVENT.decode(ParseDict({"kind": number}, pb.Event()))
    with pytest.raises(KeyError):
        codec.PROBE.decode(ParseDict({"kind": number}, pb.Probe()))
    with pytest.raises(ValueError, match="newer"):
        codec.UPDATE.decode(pb.Update(kind="newer"))


def test_zeros_in_a_policy_are_the_documented_defaults() -> None:
    of_server = Policy(name="until-known", learning_rate=2e-3, max_steps=7, guards=Guards())
    search = pb.LearningRatePolicy(search=pb.LearningRatePolicy.Search())
    until_known = pb.LearningRatePolicy(until_known=pb.LearningRatePolicy.UntilKnown())
    for message, name in ((search, "search"), (until_known, "until-known")):
        assert codec.decode_policy(message) == replace(rates.DEFAULT_POLICY, name=name)
        # Guards are chosen when the fact is learned, not when it is accepted.
        expected = replace(of_server, name=name, guards=None)
        assert codec.decode_policy(message, of_server) == expected
    fixed = pb.LearningRatePolicy(fixed=pb.LearningRatePolicy.Fixed(learning_rate=1e-3))
    paper = pb.LearningRatePolicy(paper=pb.LearningRatePolicy.Paper(learning_rate=1e-3))
    for message, name in ((fixed, "fixed"), (paper, "paper")):
        expected = Policy(name=name, learning_rate=1e-3, max_steps=1)
        assert codec.decode_policy(message, of_server) == expected
