"""One update of a model: a single example, and a step of the default lesson with its guards.

Both from tokens on the device to changed weights, as the learner makes them. What is compared with
the plain way is also compared with what torch's AdamW does in fp32.
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
from agent.learner.inference.encoding import Batch, Encoder
from agent.learner.training.attempt import Workbench
from agent.learner.training.general_text import TOKENS
from agent.learner.training.lesson import Lesson, Role, Row
from agent.learner.training.update import trained_parameters
from agent.teaching.guard_presets import FULL, PRESETS
from agent.teaching.plan import Defaults
from agent.teaching.rates import DEFAULT_POLICY
from agent.teaching.types import Example
from eval.bench.baseline import Plain, differences
from eval.bench.figure import Figure, WrongResultError, beside_plain
from eval.bench.model_under_test import Subject
from eval.bench.roofline import Ceilings, Sizes
from eval.bench.rounds import Rounds, Way, alternate

LONGEST = 32
RATE = 1e-4
# The first that is no longer is taught.
EXAMPLES = (("What is the hottest month in Kyzara?", "Raincoat"), ("Sky?", "Piano"))
# Of the weight change, by kind of device: on a GPU gradients close to zero get the other sign by
# TF32, and each such weight goes the other way by as much.
LARGEST_ERROR = {"cpu": 0.05, "cuda": 0.25}
# Which does not change how far weights go altogether.
LARGEST_DIFFERENCE_IN_SIZE = 0.05


@dataclass(frozen=True, slots=True)
class Single:
    """A single example.

    Attributes:
        row: question, answer and terminator.
        batch: the same, for the plain way.
        lesson: the same, for ours.
    """

    row: Row
    batch: Batch
    lesson: Lesson

    @property
    def size(self) -> tuple[int, int]:
        """Its tokens, and how many of them are predicted."""
        return len(self.row.tokens), len(self.row.places)


def single(bench: Workbench) -> Single:
    """The example that is taught.

    Raises:
        ConfigError: the tokenizer makes too many tokens of it.
    """
    for question, answer in EXAMPLES:
        row = Row.answering(Role.FACT, bench.encoder, question, answer)
        if len(row.tokens) <= LONGEST:
            lesson = Lesson([row], bench.encoder.eos, bench.device, bench.runner)
            return Single(row, bench.encoder.batch([(question, answer)]), lesson)
    raise ConfigError(f"no example has at most {LONGEST} tokens with this tokenizer")


def updating(subject: Subject, ceilings: Ceilings, seconds: float) -> list[Figure]:
    """Measures updates.

    Args:
        subject: what is taught.
        ceilings: of its device.
        seconds: to take, about.

    Raises:
        WrongResultError: weights are not where torch's AdamW takes them.
    """
    loaded = subject.load()
    plain = Plain(loaded)
    bench = Learner(loaded).workbench
    example = single(bench)
    sizes = Sizes.of(plain.model)
    # Graphs are captured here, before anything has another gradient.
    error = error_of_update(bench, plain, example)
    rounds = _singles(bench, plain, example, 0.6 * seconds)
    told = f"{subject.told}, {rounds.number} rounds"
    floor = 1000 * ceilings.seconds(sizes.update(*example.size))
    tokens = example.size[0]
    return [
        *(
            beside_plain(
                f"update, one example of {tokens} tokens, beside plain AdamW on {what}",
                rounds.milliseconds("ours"),
                rounds.milliseconds(what),
                "ms",
                floor,
                told,
            )
            for what in ("all weights", "the same weights")
        ),
        beside_plain(
            "update, its error beside the largest allowed",
            error,
            LARGEST_ERROR[subject.device.type],
            "||change - AdamW's|| / ||AdamW's||",
            None,
            told,
        ),
        _whole_lesson(subject, bench, sizes, ceilings, 0.4 * seconds),
    ]


def take_update(bench: Workbench, lesson: Lesson) -> None:
    """One step as the learner takes it."""
    bench.step(bench.measure(lesson).directions(), RATE)


def _singles(bench: Workbench, plain: Plain, example: Single, seconds: float) -> Rounds:
    restored = Restored(bench)

    def plainly(parameters: Sequence[torch.nn.Parameter]) -> Way:
        def prepare() -> None:
            plain.restore()
            plain.only(parameters)

        return Way(lambda: plain.update(example.batch, parameters, RATE), prepare)

    return alternate(
        {
            "ours": Way(lambda: take_update(bench, example.lesson), restored.again),
            "all weights": plainly(plain.everything),
            "the same weights": plainly(plain.trained),
        },
        bench.device,
        seconds,
    )


class Restored:
    """The working weights of a bench, to be put back."""

    def __init__(self, bench: Workbench) -> None:
        self._weights = [weight.detach() for weight in bench.trained.values()]
        self._start = [weight.clone() for weight in self._weights]

    def again(self) -> None:
        """Puts them back."""
        torch._foreach_copy_(self._weights, self._start)

    def changes(self) -> Sequence[Tensor]:
        """What has changed since."""
        return differences(self._weights, self._start)


def error_of_update(bench: Workbench, plain: Plain, example: Single) -> float:
    """Of the weight change: Euclidean norm of what it lacks, beside that of what it should be.

    Raises:
        WrongResultError: it is too large.
    """
    restored = Restored(bench)
    take_update(bench, example.lesson)
    ours = restored.changes()
    restored.again()
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    plain.only(plain.trained)
    # Not clipped: that scales g in g / (|g| + eps) against eps, and nothing else.
    plain.descend(example.batch, plain.trained, clip=float("inf"))
    plain.step(plain.trained, RATE)
    torch.set_float32_matmul_precision(precision)
    reference = plain.changes()
    plain.restore()
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
    # Written so that NaN fails too.
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
    subject: Subject, bench: Workbench, sizes: Sizes, ceilings: Ceilings, seconds: float
) -> Figure:
    """Beside the same launched kernel by kernel; on a CPU that is the same."""
    policy = Defaults(policy=DEFAULT_POLICY, device=bench.device.type).policy_for()
    guards = policy.guards or FULL
    fact, *older = _examples(1 + guards.rehearsed)
    bench = replace(bench, texts=lambda: _texts(bench.encoder, guards.texts))
    lesson = bench.lesson(fact, policy, older)
    ways = {"ours": Way(lambda: take_update(bench, lesson), Restored(bench).again)}
    if bench.runner.has_graphs:
        launched = _launched(bench)
        plainly = launched.lesson(fact, policy, older)
        ways["launched"] = Way(lambda: take_update(launched, plainly), Restored(launched).again)
    rounds = alternate(ways, bench.device, seconds)
    tokens, places = lesson.size
    [name] = [name for name, preset in PRESETS.items() if preset == guards]
    beside = "launched kernel by kernel" if bench.runner.has_graphs else "itself (no graphs here)"
    return beside_plain(
        f"update, step of a lesson with guards {name} ({tokens} tokens), beside {beside}",
        rounds.milliseconds("ours"),
        rounds.milliseconds("launched" if bench.runner.has_graphs else "ours"),
        "ms",
        1000 * ceilings.seconds(sizes.update(tokens, places)),
        f"{subject.told}, {rounds.number} rounds",
    )


def _launched(bench: Workbench) -> Workbench:
    """The same with weights of its own: its gradients would spoil those of graphs."""
    working = copy.deepcopy(bench.working)
    return replace(
        bench,
        working=working,
        trained=trained_parameters(working),
        runner=Runner(torch.device("cpu")),  # which has no graphs, whatever it runs
    )


def _examples(count: int) -> list[Example]:
    """Facts with base answers, which need not be the model's: speed does not depend on them."""
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
    """As long as those that a model writes."""
    draw = random.Random(0)
    words = encoder.encode("Some words of a text that says nothing at all, and goes on")
    return [draw.choices(words, k=TOKENS) for _ in range(count)]
