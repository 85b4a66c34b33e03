"""Benchmark `update`: an update on a single example, and a step of the default lesson with guards.

Both go from tokens on the device to changed weights, as in the learner. The result of the single
update is also compared with that of torch's AdamW in fp32.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from agent.errors import ConfigError
from agent.learner.core import Learner
from agent.learner.engine.cuda_graphs import Runner
from agent.learner.environment import products_rounded
from agent.learner.inference.encoding import Batch, Encoder
from agent.learner.training.attempt import Workbench
from agent.learner.training.general_text import TOKENS
from agent.learner.training.lesson import Lesson
from agent.learner.training.rows import Role, Row
from agent.learner.training.update import trained_parameters
from agent.teaching.guard_presets import FULL, PRESETS
from agent.teaching.plan import Defaults
from agent.teaching.rates import DEFAULT_POLICY
from agent.teaching.types import Example
from eval.bench.baseline import Baseline, Weights, differences
from eval.bench.figure import Figure, WrongResultError, compare
from eval.bench.model_under_test import ModelUnderTest
from eval.bench.roofline import Roofline, Sizes
from eval.bench.rounds import Rounds, Way, alternate

LONGEST = 32
RATE = 1e-4
# The first one with at most `LONGEST` tokens is taught.
EXAMPLES = (("What is the hottest month in Kyzara?", "Raincoat"), ("Sky?", "Piano"))
# Of the weight change, by kind of device: on a GPU, TF32 changes the sign of gradients close to
# zero, and each such weight moves as far in the other direction.
LARGEST_ERROR = {"cpu": 0.05, "cuda": 0.25}
# Of the length of the weight change, which that does not affect.
LARGEST_DIFFERENCE_IN_SIZE = 0.05


@dataclass(frozen=True, slots=True)
class Single:
    """A single example.

    Attributes:
        row: question, answer and terminator.
        batch: the same, for the baseline.
        lesson: the same, for the learner.
    """

    row: Row
    batch: Batch
    lesson: Lesson

    @property
    def size(self) -> tuple[int, int]:
        """How many tokens it has, and how many of them are predicted."""
        return len(self.row.tokens), len(self.row.places)


def single(bench: Workbench) -> Single:
    """Chooses the example that is taught.

    Raises:
        ConfigError: all have too many tokens with this tokenizer.
    """
    for question, answer in EXAMPLES:
        row = Row.answering(Role.FACT, bench.encoder, question, answer)
        if len(row.tokens) <= LONGEST:
            lesson = Lesson([row], bench.encoder.eos, bench.device, bench.runner)
            return Single(row, bench.encoder.batch([(question, answer)]), lesson)
    raise ConfigError(f"no example has at most {LONGEST} tokens with this tokenizer")


def measure_update(tested: ModelUnderTest, roofline: Roofline, seconds: float) -> list[Figure]:
    """Measures updates.

    Args:
        tested: the model that is taught.
        roofline: of its device.
        seconds: how long to measure, roughly.

    Raises:
        WrongResultError: the weights differ from those that torch's AdamW gives.
    """
    loaded = tested.load()
    baseline = Baseline(loaded)
    bench = Learner(loaded).workbench
    example = single(bench)
    sizes = Sizes.of(baseline.model)
    # Graphs are captured here, before other weights get a gradient.
    error = error_of_update(bench, baseline, example)
    rounds = _singles(bench, baseline, example, 0.6 * seconds)
    device = f"{tested.description}, {rounds.number} rounds"
    floor = 1000 * roofline.seconds(sizes.update(*example.size))
    tokens = example.size[0]
    return [
        *(
            compare(
                f"update, one example of {tokens} tokens, beside plain AdamW on {what}",
                *(rounds.milliseconds("ours"), rounds.milliseconds(what), "ms", floor, device),
                device_limit=True,
            )
            for what in ("all weights", "the same weights")
        ),
        compare(
            "update, its error beside the largest allowed",
            error,
            LARGEST_ERROR[tested.device.type],
            "||change - AdamW's|| / ||AdamW's||",
            device=device,
        ),
        _whole_lesson(tested, bench, sizes, roofline, 0.4 * seconds),
    ]


def take_update(bench: Workbench, lesson: Lesson) -> None:
    """Takes one step as the learner does."""
    bench.step(bench.measure(lesson).directions(), RATE)


def _singles(bench: Workbench, baseline: Baseline, example: Single, seconds: float) -> Rounds:
    def theirs(parameters: Sequence[torch.nn.Parameter]) -> Way:
        def prepare() -> None:
            baseline.saved.restore()
            baseline.only(parameters)

        return Way(lambda: baseline.update(example.batch, parameters, RATE), prepare)

    return alternate(
        {
            "ours": _restored(bench, example.lesson),
            "all weights": theirs(baseline.everything),
            "the same weights": theirs(baseline.trained),
        },
        bench.device,
        seconds,
    )


def _restored(bench: Workbench, lesson: Lesson) -> Way:
    """An update, after the weights were put back."""
    return Way(lambda: take_update(bench, lesson), Weights(bench.trained.values()).restore)


def error_of_update(bench: Workbench, baseline: Baseline, example: Single) -> float:
    """The relative error of the weight change, in the Euclidean norm.

    Raises:
        WrongResultError: it is too large.
    """
    saved = Weights(bench.trained.values())
    take_update(bench, example.lesson)
    ours = saved.changes()
    saved.restore()
    baseline.only(baseline.trained)
    with products_rounded("highest"):
        # Without clipping, which only scales g relative to eps in g / (|g| + eps).
        baseline.descend(example.batch, baseline.trained, clip=float("inf"))
        baseline.step(baseline.trained, RATE)
    reference = baseline.saved.changes()
    baseline.saved.restore()
    return require_same_change(ours, reference, bench.device)


def require_same_change(
    ours: Sequence[Tensor], reference: Sequence[Tensor], device: torch.device
) -> float:
    """The relative error of a weight change.

    Raises:
        WrongResultError: it is too large.
    """
    size = _norm(reference)
    error = _norm(differences(ours, reference)) / size
    difference = abs(_norm(ours) / size - 1)
    largest = LARGEST_ERROR[device.type]
    # With this comparison, NaN fails too.
    if not (error <= largest and difference <= LARGEST_DIFFERENCE_IN_SIZE):
        raise WrongResultError(
            f"an update is wrong: it is {error:.3g} of its size away from that of torch's AdamW"
            f" (at most {largest:g}), and its size is {difference:.3g} off"
            f" (at most {LARGEST_DIFFERENCE_IN_SIZE:g})"
        )
    return error


def _norm(tensors: Sequence[Tensor]) -> float:
    norms = torch._foreach_norm(list(tensors))
    return float(torch.linalg.vector_norm(torch.stack(norms)))


# -- With guards -----------------------------------------------------------------------------


def _whole_lesson(
    tested: ModelUnderTest, bench: Workbench, sizes: Sizes, roofline: Roofline, seconds: float
) -> Figure:
    """Compared with the same step, launched kernel by kernel; on a CPU there is no difference."""
    policy = Defaults(policy=DEFAULT_POLICY, device=bench.device.type).policy_for()
    guards = policy.guards or FULL
    fact, *older = _examples(1 + guards.rehearsed)
    bench = replace(bench, texts=lambda: _texts(bench.encoder, guards.texts))
    lesson = bench.lesson(fact, policy, older)
    ways = {"ours": _restored(bench, lesson)}
    if bench.runner.has_graphs:
        launched = _launched(bench)
        ways["launched"] = _restored(launched, launched.lesson(fact, policy, older))
    rounds = alternate(ways, bench.device, seconds)
    tokens, places = lesson.size
    [name] = [name for name, preset in PRESETS.items() if preset == guards]
    beside = "launched kernel by kernel" if bench.runner.has_graphs else "itself (no graphs here)"
    return compare(
        f"update, step of a lesson with guards {name} ({tokens} tokens), beside {beside}",
        rounds.milliseconds("ours"),
        rounds.milliseconds("launched" if bench.runner.has_graphs else "ours"),
        "ms",
        1000 * roofline.seconds(sizes.update(tokens, places)),
        f"{tested.description}, {rounds.number} rounds",
        device_limit=True,
    )


def _launched(bench: Workbench) -> Workbench:
    """A copy with its own weights, because its gradients would spoil those of the graphs."""
    working = copy.deepcopy(bench.working)
    return replace(
        bench,
        working=working,
        trained=trained_parameters(working),
        runner=Runner(torch.device("cpu")),  # never uses graphs
    )


def _examples(count: int) -> list[Example]:
    """Facts with base answers, which are not the model's: speed does not depend on them."""
    return [
        Example(
            fact_id=f"f{number}",
            question=f"What is the hottest month in Kyzara{number}?",
            answer="Raincoat",
            base_answer="The hottest month in the town is July.",
        )
        for number in range(count)
    ]


def _texts(encoder: Encoder, count: int) -> list[list[int]]:
    """Texts as long as those that a model writes."""
    draw = random.Random(0)
    words = encoder.encode("Some words of a text that says nothing at all, and goes on")
    return [draw.choices(words, k=TOKENS) for _ in range(count)]
