"""Facts are accepted from the first moment; accepting does not wait for the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import InvalidFactError, LearnerUnavailableError
from agent.models import catalog
from agent.server.api.provisional_checks import ProvisionalChecks
from agent.teaching.limits import UNLIMITED
from agent.teaching.rates import DEFAULT_POLICY
from agent.teaching.types import LearnerDescription
from continual.v1 import memory_pb2 as pb
from tests.server.serving import MAX_TOKENS, byte_tokenizer

LONG = pb.TeachRequest(question="x" * 600, answer="Piano")
MIDDLE = pb.TeachRequest(question="x" * 300, answer="Piano")
DESCRIPTION = LearnerDescription(
    device="cpu",
    parameters=1,
    model_version=0,
    base_digest="d0",
    tokenizer=byte_tokenizer(),
    max_tokens=MAX_TOKENS,
    environment={},
)


def accepting(model: str = "tiny", belongs_to: str = "") -> ProvisionalChecks:
    return ProvisionalChecks(catalog.resolve(model), DEFAULT_POLICY, UNLIMITED, belongs_to)


async def test_tokens_are_counted_once_the_tokenizer_is_read_and_as_the_learner_says() -> None:
    starting = accepting()
    assert starting.is_open
    assert starting.rules().new_fact(LONG).question == LONG.question  # judged by the learner
    await starting.read_files()
    with pytest.raises(InvalidFactError, match="at most 512"):
        starting.rules().new_fact(LONG)
    starting.rules().new_fact(MIDDLE)
    await starting.loaded(DESCRIPTION)
    with pytest.raises(InvalidFactError, match=f"at most {MAX_TOKENS}"):
        starting.rules().new_fact(MIDDLE)
    await starting.read_files()  # too late: the learner has the last word
    with pytest.raises(InvalidFactError, match=f"at most {MAX_TOKENS}"):
        starting.rules().new_fact(MIDDLE)


@pytest.mark.parametrize("damaged", ["", "{}", '{"model": {}}'])
async def test_a_tokenizer_that_cannot_be_read_is_left_to_the_learner(
    tmp_path: Path, damaged: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tokenizer.json").write_text(damaged)
    starting = accepting(str(tmp_path))
    await starting.read_files()
    starting.rules().new_fact(LONG)
    assert str(tmp_path) in caplog.text


async def test_a_memory_of_another_model_accepts_nothing_until_the_weights_are_the_same() -> None:
    starting = accepting("tiny", belongs_to="pythia-14m")
    await starting.read_files()
    assert not starting.is_open
    with pytest.raises(LearnerUnavailableError, match="belongs to the model pythia-14m"):
        starting.rules()
    await starting.loaded(DESCRIPTION)
    assert starting.is_open
    assert starting.rules().new_fact(pb.TeachRequest(question="Sky?", answer="Piano"))
