"""From `Teach` to learned: a server with the default policy, beside a plain loop without guards."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.client.client import Client
from agent.learner.engine.fused_layers import VARIABLE
from agent.learner.inference.encoding import Encoder
from agent.learner.training.general_text import general_texts
from agent.models import catalog
from agent.teaching.prompts import normalise
from agent.teaching.rates import DEFAULT_POLICY
from agent.teaching.types import Example
from eval.bench.figure import Figure, WrongResultError, beside_plain
from eval.bench.model_under_test import Subject
from eval.bench.roofline import Ceilings, Sizes, Work
from eval.bench.server_process import benchmark_server
from eval.fictional import fictional_facts
from eval.suites.paper.facts import PAPER_FACTS
from eval.teachers.until_known import UntilKnown
from memory_store.vocabulary import Fact, FactState

SEED = 11
LEAST, MOST = 1, 20
# Taught first by both, by kind of device: on a GPU graphs are captured meanwhile.
WARM_UP = {"cpu": 0, "cuda": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How facts are taught.

    Attributes:
        options: of `agent serve`.
        facts: what they are; the first ones of these.
        learning_rate: of the plain loop.
        max_steps: of the plain loop for one fact.
    """

    options: tuple[str, ...]
    facts: Sequence[tuple[str, str]]
    learning_rate: float
    max_steps: int


def how_to_teach(model: str) -> How:
    """By the default policy; `tiny`, which learns nothing by it, as the other benchmarks do."""
    if model == "tiny":
        facts = [(f"{fact.id}?", fact.answer) for fact in PAPER_FACTS]
        return How(options=(), facts=facts, learning_rate=3e-3, max_steps=100)
    policy = DEFAULT_POLICY
    return How(
        options=(
            *("--policy", policy.name, "--learning-rate", str(policy.learning_rate)),
            *("--max-steps", str(policy.max_steps), "--guards", "auto"),
        ),
        facts=[(fact.question, fact.answer) for fact in fictional_facts(MOST, SEED)],
        learning_rate=policy.learning_rate,
        max_steps=policy.max_steps,
    )


@dataclass(slots=True)
class Lap:
    """What teaching some facts took.

    Attributes:
        ours: seconds of each fact.
        plain: likewise.
        facts: as the server has them.
    """

    ours: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)

    @property
    def learned(self) -> int:
        """How many of ours did not resist."""
        return sum(fact.state in (FactState.LEARNED, FactState.KNOWN) for fact in self.facts)


def teaching(subject: Subject, ceilings: Ceilings, seconds: float) -> list[Figure]:
    """Measures teaching.

    Args:
        subject: what is taught.
        ceilings: of its device.
        seconds: to take, about, the start left out.

    Raises:
        AgentError: the server does not start.
        WrongResultError: a fact that is said to be learned is not answered.
    """
    how = how_to_teach(subject.model)
    loaded = subject.load()
    sizes = Sizes.of(loaded.model)
    encoder = Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device)
    if subject.device.type == "cpu":
        # Written once for a model, which takes a CPU a minute: not a part of any fact.
        general_texts(loaded, encoder)
    plain = UntilKnown(loaded, learning_rate=how.learning_rate, max_steps=how.max_steps)
    options = (*how.options, "--model", subject.model, "--device", str(subject.device))
    # The server takes no settings of the user's, but finds models where this process does.
    environment = {catalog.CACHE_VARIABLE: str(catalog.cache_folder())}
    if VARIABLE in os.environ:
        environment[VARIABLE] = os.environ[VARIABLE]
    with (
        tempfile.TemporaryDirectory() as folder,
        benchmark_server(
            Path(folder) / "data", environment=environment, options=(*options, "--threads", "0")
        ) as server,
        Client(server.address) as client,
    ):
        warm = WARM_UP[subject.device.type]
        _taught(client, plain, how.facts[:warm], 0, least=warm)
        lap = _taught(client, plain, how.facts[warm:], seconds, least=LEAST)
        recalled = sum(_answers(client, fact) for fact in lap.facts)
    known = plain.probe([(fact.question, fact.answer) for fact in lap.facts])
    count = len(lap.facts)
    told = (
        f"{subject.told}, {count} facts: {lap.learned} learned, {recalled} recalled at the end,"
        f" {sum(answer.correct for answer in known)} by the plain loop"
    )
    steps = [len(fact.learning.learning_rates if fact.learning else ()) for fact in lap.facts]
    updates = [sizes.update(*_size(encoder, fact)) for fact in lap.facts]
    work = sum((one * n for one, n in zip(updates, steps, strict=True)), Work(0, 0))
    least_seconds = ceilings.seconds(work)
    return [
        beside_plain(
            "teach to learned, beside a plain loop without guards",
            statistics.median(lap.ours),
            statistics.median(lap.plain),
            "s a fact",
            least_seconds / count,
            told,
        ),
        beside_plain(
            "teach to learned, beside a plain loop without guards, all facts",
            count / sum(lap.ours),
            count / sum(lap.plain),
            "facts/s",
            count / least_seconds if least_seconds else None,
            told,
        ),
    ]


def _taught(
    client: Client,
    plain: UntilKnown,
    facts: Sequence[tuple[str, str]],
    seconds: float,
    *,
    least: int,
) -> Lap:
    """Teaches facts by both ways in turns, until the time is over; at least so many."""
    lap = Lap()
    started = time.perf_counter()
    for number, (question, answer) in enumerate(facts):
        begun = time.perf_counter()
        taken = begun - started
        if number >= max(least, 1) and taken * (number + 1) / number > seconds:
            break
        accepted = client.teach(question, answer)
        learned = client.wait([accepted.fact.id])[accepted.fact.id]
        lap.ours.append(time.perf_counter() - begun)
        lap.facts.append(learned)
        require_answered(client, learned)
        example = Example(fact_id=learned.id, question=question, answer=answer)
        [taught] = plain.teach([example])
        lap.plain.append(taught.seconds)
    return lap


def require_answered(client: Client, fact: Fact) -> None:
    """Asks for a fact that has just been learned.

    Raises:
        WrongResultError: it is not answered.
    """
    if fact.state is FactState.LEARNED and not _answers(client, fact):
        raise WrongResultError(
            f"'{fact.question}' was learned, but the answer is not '{fact.answer}'"
        )


def _answers(client: Client, fact: Fact) -> bool:
    reply = client.ask(fact.question)
    return reply.finished and normalise(reply.answer) == normalise(fact.answer)


def _size(encoder: Encoder, fact: Fact) -> tuple[int, int]:
    """Tokens of question and answer, and of the answer."""
    answer = len(encoder.answer(fact.answer))
    return len(encoder.prompt(fact.question)) + answer, answer
