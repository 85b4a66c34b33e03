"""Benchmark `teach`: a server with the default policy, compared with a loop without guards."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.client.client import Client
from agent.learner.engine.fused_layers import VARIABLE
from agent.learner.inference.encoding import Encoder
from agent.learner.training.general_text import general_texts
from agent.models import catalog
from agent.teaching.prompts import normalise
from agent.teaching.rates import DEFAULT_POLICY, UNTIL_KNOWN
from agent.teaching.types import Example
from eval.bench.figure import Figure, WrongResultError, compare
from eval.bench.model_under_test import ModelUnderTest
from eval.bench.roofline import Roofline, Sizes, Work
from eval.bench.server_process import benchmark_server
from eval.fictional import fictional_facts
from eval.suites.paper.facts import PAPER_FACTS
from eval.teachers.until_known import UntilKnown
from memory_store.vocabulary import Fact, FactState, Policy

SEED = 11
LEAST, MOST = 1, 20
# Facts that both are taught first, by kind of device: on a GPU, graphs are captured then.
WARM_UP = {"cpu": 0, "cuda": 2}


# `tiny` learns nothing by the default policy.
TINY_POLICY = Policy(name=UNTIL_KNOWN, learning_rate=3e-3, max_steps=100)


@dataclass(slots=True)
class Lap:
    """The results of teaching some facts.

    Attributes:
        ours: seconds of each fact.
        baseline: seconds of each fact in the loop.
        facts: as the server returned them.
    """

    ours: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)

    @property
    def learned(self) -> int:
        """How many facts the server learned, or knew already."""
        return sum(fact.state in (FactState.LEARNED, FactState.KNOWN) for fact in self.facts)


def measure_teach(tested: ModelUnderTest, roofline: Roofline, seconds: float) -> list[Figure]:
    """Measures teaching.

    Args:
        tested: the model that is taught.
        roofline: of its device.
        seconds: how long to measure, roughly, without the start.

    Raises:
        AgentError: the server does not start.
        WrongResultError: a learned fact is not answered.
    """
    tiny = tested.model == "tiny"
    policy = TINY_POLICY if tiny else DEFAULT_POLICY
    loaded = tested.load()
    sizes = Sizes.of(loaded.model)
    encoder = Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device)
    if tested.device.type == "cpu":
        # Written once for a model, in a minute on a CPU: not a part of any fact.
        general_texts(loaded, encoder)
    loop = UntilKnown(loaded, learning_rate=policy.learning_rate, max_steps=policy.max_steps)
    with _server(tested, policy, () if tiny else ("--guards", "auto")) as client:
        warm, facts = WARM_UP[tested.device.type], _facts(tiny)
        _taught(client, loop, facts[:warm], 0, least=warm)
        lap = _taught(client, loop, facts[warm:], seconds, least=LEAST)
        recalled = sum(_answers(client, fact) for fact in lap.facts)
    known = loop.probe([(fact.question, fact.answer) for fact in lap.facts])
    count = len(lap.facts)
    device = (
        f"{tested.description}, {count} facts: {lap.learned} learned, {recalled} recalled at the"
        f" end, {sum(answer.correct for answer in known)} by the plain loop"
    )
    steps = [len(fact.learning.learning_rates if fact.learning else ()) for fact in lap.facts]
    updates = [sizes.update(*_size(encoder, fact)) for fact in lap.facts]
    work = sum((one * n for one, n in zip(updates, steps, strict=True)), Work(0, 0))
    least_seconds = roofline.seconds(work)
    return [
        compare(
            "teach to learned, beside a plain loop without guards",
            statistics.median(lap.ours),
            statistics.median(lap.baseline),
            *("s a fact", least_seconds / count, device),
            device_limit=True,
        ),
        compare(
            "teach to learned, beside a plain loop without guards, all facts",
            count / sum(lap.ours),
            count / sum(lap.baseline),
            *("facts/s", count / least_seconds if least_seconds else None, device),
            device_limit=True,
        ),
    ]


def _facts(tiny: bool) -> list[tuple[str, str]]:
    if tiny:
        return [(f"{fact.id}?", fact.answer) for fact in PAPER_FACTS]
    return [(fact.question, fact.answer) for fact in fictional_facts(MOST, SEED)]


@contextmanager
def _server(tested: ModelUnderTest, policy: Policy, guards: Sequence[str]) -> Iterator[Client]:
    # The server ignores the user's settings, but finds models where this process does.
    environment = {catalog.CACHE_VARIABLE: str(catalog.cache_folder())}
    if VARIABLE in os.environ:
        environment[VARIABLE] = os.environ[VARIABLE]
    options = (
        *("--policy", policy.name, "--learning-rate", str(policy.learning_rate)),
        *("--max-steps", str(policy.max_steps), *guards, "--threads", "0"),
        *("--model", tested.model, "--device", str(tested.device)),
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        benchmark_server(Path(folder) / "data", environment=environment, options=options) as server,
        Client(server.address) as client,
    ):
        yield client


def _taught(
    client: Client,
    loop: UntilKnown,
    facts: Sequence[tuple[str, str]],
    seconds: float,
    *,
    least: int,
) -> Lap:
    """Teaches facts in both ways in turns until the time is over, but at least `least` facts."""
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
        [taught] = loop.teach([example])
        lap.baseline.append(taught.seconds)
    return lap


def require_answered(client: Client, fact: Fact) -> None:
    """Asks about a fact that has just been learned.

    Raises:
        WrongResultError: the answer is wrong.
    """
    if fact.state is FactState.LEARNED and not _answers(client, fact):
        raise WrongResultError(
            f"'{fact.question}' was learned, but the answer is not '{fact.answer}'"
        )


def _answers(client: Client, fact: Fact) -> bool:
    reply = client.ask(fact.question)
    return reply.finished and normalise(reply.answer) == normalise(fact.answer)


def _size(encoder: Encoder, fact: Fact) -> tuple[int, int]:
    """Tokens of question and answer together, and of the answer."""
    answer = len(encoder.answer(fact.answer))
    return len(encoder.prompt(fact.question)) + answer, answer
