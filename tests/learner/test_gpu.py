"""On a GPU: graphs give what plain launches give, and a replay the same bits."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import torch

from agent.learner.core import Learner
from agent.learner.engine.cuda_graphs import Runner
from agent.learner.environment import make_deterministic
from agent.learner.inference.encoding import Encoder
from agent.learner.sampling import decode_batch as rows_module
from agent.learner.sampling.sampler import Cell, Sampler, Sampling
from agent.learner.training.paper_step import descent, paper_batch
from agent.learner.training.update import score_answers, take_step
from agent.models.loading import load
from agent.teaching.types import Example, Outcome, ReplayedUpdate
from memory_store.vocabulary import Guards, Policy, Update, Verdict
from tests.learner.learners import lesson, sampled

pytestmark = pytest.mark.gpu

LITTLE_MEMORY = 256 << 20

EVERY = Guards(candidates=4, rehearsed=2, neighbours=4, controls=2, texts=2)
POLICY = Policy(name="fixed", learning_rate=1e-3, max_steps=3, guards=EVERY)
FACTS = [
    Example(fact_id=f"f{number}", question=question, answer=answer)
    for number, (question, answer) in enumerate(
        [("Who found Blipland?", "Telescope"), ("What is mined in Yonder?", "Curtain")]
    )
]


class Launched(Runner):
    """Runs on a GPU as on a CPU: kernel by kernel."""

    has_graphs = False

    def rounded(self, size: int, unit: int) -> int:
        return size

    def tries_out(self, name, inputs):
        return False

    def run(self, name, function, inputs):
        return function(*inputs)


class LaunchedAlike(Launched):
    """Kernel by kernel, but of the shapes that graphs have."""

    has_graphs = True


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    make_deterministic()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", ["fixed", "search", "predicted"])
def test_a_replay_on_a_fresh_learner_gives_the_same_bits(name: str) -> None:
    learner, again = (Learner(load("tiny", device="cuda")) for _ in range(2))
    policy = replace(POLICY, name=name)
    older: list[Example] = []
    for version, fact in enumerate(FACTS, start=1):
        *_, outcome = learner.learn(lesson(fact, policy, learner.version, older))
        assert isinstance(outcome, Outcome)
        if outcome.verdict != "learned":  # what resisted has no row
            continue
        learner.commit(learner.version + 1, outcome.digest_after)
        row = Update(
            model_version=learner.version,
            parent_version=learner.version - 1,
            fact_id=fact.fact_id,
            policy=policy,
            steps=outcome.steps,
            digest_before=outcome.digest_before,
            digest_after=outcome.digest_after,
            algorithm=outcome.algorithm,
            seconds=0.0,
            applied_at=datetime(2026, 1, version, tzinfo=UTC),
        )
        for _ in again.replay(ReplayedUpdate(update=row, example=fact, rehearsed=tuple(older))):
            pass
        older.append(fact)
    assert (again.version, again.digest) == (learner.version, learner.digest)


def test_a_graph_measures_what_plain_launches_measure() -> None:
    # Padding differs, and under TF32 a gradient close to zero may get the other sign by that.
    torch.set_float32_matmul_precision("highest")
    learner = Learner(load("tiny", device="cuda"))
    fact = replace(FACTS[0], base_answer="a town")
    older = [replace(FACTS[1], base_answer="a gem")]
    found = []
    # Plainly last: a graph cannot be captured once the same weights had a gradient elsewhere.
    for runner in (learner.workbench.runner, Launched(torch.device("cuda"))):
        bench = replace(learner.workbench, runner=runner)
        measured = bench.measure(bench.lesson(fact, POLICY, older))
        found.append((measured.loss, [direction.clone() for direction in measured.directions()]))
    (by_graph, graph_directions), (plainly, plain_directions) = found
    assert by_graph == pytest.approx(plainly, rel=1e-4)
    # All together: of a bias alone many a gradient is close to zero.
    ours, theirs = (
        torch.cat([direction.flatten() for direction in directions])
        for directions in (graph_directions, plain_directions)
    )
    assert (ours.sign() == theirs.sign()).float().mean().item() > 0.99


def test_the_papers_step_by_a_graph_is_the_one_by_plain_launches() -> None:
    torch.set_float32_matmul_precision("highest")
    pairs = [(fact.question, fact.answer) for fact in FACTS]
    found = []
    for graphs in (True, False):
        loaded = load("tiny", device="cuda")
        batch = paper_batch(Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device), pairs)
        runner = Runner(loaded.device, graphs=graphs)
        steps = []
        for _ in range(3):
            step = descent(loaded.model, batch, runner)
            take_step(list(loaded.model.parameters()), step.directions, 1e-4)
            steps.append((step.loss, step.gradient_norm))
        scores = score_answers(loaded.model, batch, runner)
        found.append((steps, scores.log_probability.tolist()))
    (by_graph, scored), (plainly, scored_plainly) = found
    assert [loss for loss, _ in by_graph] == sorted((loss for loss, _ in by_graph), reverse=True)
    for ours, theirs in zip(by_graph, plainly, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert scored == pytest.approx(scored_plainly, rel=1e-2)


def test_samples_are_those_of_the_cpu() -> None:
    sampling = Sampling(temperature=0.8, top_k=40, top_p=0.95, max_length=40)
    cells = [
        Cell(prompt=fact.question, answer="k", samples=300, sampling=sampling, key=key, estimate=on)
        for fact, key, on in zip(FACTS, "ab", (True, False), strict=True)
    ]
    found = []
    ways = (("cpu", 64, False), ("cuda", 256, False), ("cuda", 96, False), ("cuda", 256, True))
    for device, rows, half in ways:
        loaded = load("tiny", device=device)
        eos = loaded.eos_token_id
        sampler = Sampler(loaded.model, loaded.tokenizer, eos=eos, rows=rows, half=half)
        found.append(sampler.sample(cells))
    for here, *there in zip(*found, strict=True):
        assert 0 < here.correct < here.samples
        for other in there:
            # TF32 or fp16 moves a draw that is close to a boundary.
            assert abs(other.correct - here.correct) <= 6
            assert other.texts[0] == here.texts[0] or other.texts[1] == here.texts[1]


@pytest.mark.parametrize("estimate", [False, True])
def test_graphs_sample_what_plain_launches_sample(
    estimate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other widths, other sums; under TF32 such a difference would grow.
    torch.set_float32_matmul_precision("highest")
    loaded = load("tiny", device="cuda")
    cells = [
        Cell(
            prompt=fact.question,
            answer=answer,
            samples=300,
            sampling=Sampling(top_k=40, max_length=60),
            key=answer,
            estimate=estimate,
        )
        for fact, answer in zip(FACTS, ("k", "ke"), strict=True)
    ]

    def sampler(**settings: Any) -> Sampler:
        return Sampler(
            loaded.model, loaded.tokenizer, eos=loaded.eos_token_id, rows=128, **settings
        )

    by_graph = sampler()
    found = by_graph.sample(cells)
    assert 0 < found[0].correct < found[0].samples
    assert by_graph.sample(cells) == found  # by the graphs that are there now
    monkeypatch.setattr(rows_module, "Runner", LaunchedAlike)
    assert sampler().sample(cells) == found
    each_token = sampler(steps=1).sample(cells)
    assert [(one.correct, one.tokens, one.texts) for one in each_token] == [
        (one.correct, one.tokens, one.texts) for one in found
    ]


def test_where_memory_does_not_suffice_fewer_texts_are_sampled_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loaded = load("tiny", device="cuda")
    cell = Cell(
        prompt=FACTS[0].question,
        answer="k",
        samples=9000,
        sampling=Sampling(top_k=40, max_length=60),
        key="k",
        estimate=True,
    )

    def sampler(rows: int) -> Sampler:
        return Sampler(loaded.model, loaded.tokenizer, eos=loaded.eos_token_id, rows=rows)

    # Once at ease: what libraries keep for themselves is not to be what does not fit.
    [expected] = sampler(2048).sample([cell])
    gc.collect()
    torch.cuda.empty_cache()
    _, everything = torch.cuda.mem_get_info()
    narrow = sampler(8192)
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved() + LITTLE_MEMORY) / everything
    )
    try:
        [found] = narrow.sample([cell])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert narrow.rows < 8192
    assert abs(found.correct - expected.correct) <= 9000 * 0.01  # TF32 may move a draw
    assert caplog.text.count("too little memory") == 1


def test_a_learned_fact_is_sampled() -> None:
    learner = Learner(load("tiny", device="cuda"))
    fact = replace(FACTS[0], answer="a", correlated_questions=("Sky?",))
    *_, outcome = learner.learn(lesson(fact, POLICY, 0))
    assert isinstance(outcome, Outcome)
    found, _ = sampled(learner, replace(outcome, verdict=Verdict.LEARNED), fact, samples=40)
    assert [answer.samples for answer in (found.after, *found.transfer)] == [40, 40]
