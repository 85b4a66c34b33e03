"""Every number of the paper's experiments, with its source.

There are two protocols, because the paper (Curt 2024) and its author's public scripts disagree:
`CODE` is what the scripts do, `PAPER` what the text says. The published counts came from the
scripts. Where the text is silent, `PAPER` takes the scripts' number, and says so here.

Sources: "section N" and "figure N" are the paper's; `LR_study_random.py` and
`LR_study_uniform_epochs_batchwise.py` are scripts in `experiments/learning_rate_studies/
rare_memory_injections/` of the repository `sliced-ai/slice-monorepo`; "high-resolution script" is
the one whose function is `run_high_resolution_experiment`; "epochs script" is that of figure 3.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy

from eval.errors import RequestError

# --- Training, the same in all experiments --------------------------------------------------------

TEXT = "Q: {question} A: {answer}"  # all scripts; the question's tokens are in the loss
PADDED_TO = 128  # all scripts, with EOS; padding is masked from the loss, so it changes nothing
BETAS = (0.9, 0.999)  # transformers.TrainingArguments' defaults, which all scripts use
EPSILON = 1e-8
WEIGHT_DECAY = 0.0
CLIP = 1.0
# Each "epoch" is one step with a new optimizer at the full rate: the schedule has no warm-up.
BATCH = 10  # section 3.2; LR_study_uniform_epochs_batchwise.py


# --- Sampling -------------------------------------------------------------------------------------

TOP_K = 50  # the silent default of the scripts' release of transformers


@dataclass(frozen=True, slots=True)
class Fixed:
    """The library's defaults. The text names no sampling parameters.

    Attributes:
        max_length: tokens of a row: the padding on the left in a batch, the prompt, and the
            sampled text.
    """

    max_length: int = 50  # LR_study_random.py, LR_study_uniform_epochs_batchwise.py
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = TOP_K


@dataclass(frozen=True, slots=True)
class Varied:
    """Drawn uniformly for each call of the sampler; each range includes both ends."""

    max_new_tokens: tuple[int, int]
    temperature: tuple[float, float]
    top_p: tuple[float, float]
    top_k: int = TOP_K

    def draw(self, stream: random.Random) -> Drawn:
        """The parameters of one call."""
        return Drawn(
            max_new_tokens=stream.randint(*self.max_new_tokens),
            temperature=stream.uniform(*self.temperature),
            top_p=stream.uniform(*self.top_p),
            top_k=self.top_k,
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """The parameters that `Varied` drew for one call."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int


# --- Rates ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RateRange:
    """Learning rates on a linear scale.

    Attributes:
        low: the lowest that is possible.
        high: the highest.
        count: how many.
        drawn: uniformly at random; otherwise evenly spaced, with both ends.
    """

    low: float
    high: float
    count: int
    drawn: bool = False

    def rates(self, seed: int) -> tuple[float, ...]:
        """The rates, ascending; drawn ones depend on the seed."""
        if not self.drawn:
            return tuple(numpy.linspace(self.low, self.high, self.count).tolist())
        stream = random.Random(f"rates {seed}")
        return tuple(sorted(stream.uniform(self.low, self.high) for _ in range(self.count)))


# --- The four experiments -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OneFact:
    """Experiment 1, figure 1: each fact by itself, one step at each rate."""

    rates: RateRange
    samples: int  # for each rate


@dataclass(frozen=True, slots=True)
class BatchOfTen:
    """Experiment 2, tables 1 and 2: one step on all ten; both kinds of question before and after.

    A question is asked `rounds * samples` times.
    """

    learning_rate: float
    rounds: int
    samples: int  # for each question in a round
    sampling: Fixed | Varied


@dataclass(frozen=True, slots=True)
class RateSweep:
    """Experiment 3, figure 2: three steps on all ten at each rate; the figure averages them."""

    rates: RateRange
    steps: int
    samples: int  # for each question, rate and step


@dataclass(frozen=True, slots=True)
class ManySteps:
    """Experiment 4, figure 3: fifty steps on all ten.

    Attributes:
        learning_rates: one training for each.
        steps: of each training.
        asked: how many steps are followed by questions, evenly spaced, with the last one.
        samples: for each question after such a step.
        sampling: of the questions.
    """

    learning_rates: tuple[float, ...]
    steps: int
    asked: int
    samples: int
    sampling: Fixed | Varied

    @property
    def asked_after(self) -> tuple[int, ...]:
        """The steps after which the questions are asked."""
        return tuple(
            math.ceil(self.steps * number / self.asked) for number in range(1, self.asked + 1)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """The numbers of all four experiments."""

    name: str
    fixed: Fixed
    one_fact: OneFact
    batch_of_ten: BatchOfTen
    rate_sweep: RateSweep
    many_steps: ManySteps

    def as_json(self) -> dict[str, Any]:
        """All numbers, for results."""
        return asdict(self)


CODE = Protocol(
    name="code",
    fixed=Fixed(),
    one_fact=OneFact(
        # LR_study_random.py. It draws rates for each fact; here all facts share one draw, so that
        # they can be compared rate by rate.
        rates=RateRange(low=1e-7, high=1e-3, count=100, drawn=True),
        samples=800,
    ),
    batch_of_ten=BatchOfTen(
        learning_rate=5e-5,  # high-resolution script, and so are all of these
        rounds=100,
        samples=80,  # 800 rows for ten questions
        sampling=Varied(max_new_tokens=(10, 100), temperature=(0.3, 2.0), top_p=(0.7, 1.0)),
    ),
    rate_sweep=RateSweep(
        # LR_study_uniform_epochs_batchwise.py
        rates=RateRange(low=1e-6, high=5e-3, count=500),
        steps=3,
        samples=80,  # 800 rows for ten questions
    ),
    many_steps=ManySteps(
        learning_rates=(5e-6, 5e-5, 5e-4),  # epochs script, and so are all of these
        steps=50,
        asked=50,
        samples=10,
        sampling=Varied(max_new_tokens=(10, 50), temperature=(0.5, 1.5), top_p=(0.8, 1.0)),
    ),
)
PAPER = Protocol(
    name="paper",
    fixed=Fixed(),
    one_fact=OneFact(
        rates=RateRange(low=1e-6, high=5e-3, count=100),  # section 3.1, figure 1
        samples=800,  # section 3.1, figure 1
    ),
    batch_of_ten=BatchOfTen(
        learning_rate=5e-5,  # not in the text; the high-resolution script's
        rounds=100,  # the text has no rounds; they bound what is sampled at once
        samples=800,  # section 3.2, tables 1 and 2: 80,000 for each question
        sampling=Fixed(),
    ),
    rate_sweep=RateSweep(
        rates=RateRange(low=1e-6, high=5e-3, count=500),  # section 3.3; the range is section 3.1's
        steps=3,  # section 3.3, figure 2
        samples=800,  # section 3.3, figure 2
    ),
    many_steps=ManySteps(
        learning_rates=(5e-6, 5e-5, 5e-4),  # not in the text; the epochs script's
        steps=50,  # section 3.4, figure 3
        asked=50,
        samples=10,  # section 3.4, figure 3
        sampling=Fixed(),
    ),
)
PROTOCOLS = {protocol.name: protocol for protocol in (CODE, PAPER)}


# --- Scale ----------------------------------------------------------------------------------------

FULL, SMOKE = "full", "smoke"
# The least at any scale. `smoke` is all of these.
_FEWEST_RATES, _FEWEST_SAMPLES, _FEWEST_ROUNDS, _FEWEST_ASKED = 4, 4, 2, 4


def scale_of(text: str) -> float:
    """The requested share of the full cost: `full` is 1, `smoke` is 0, or a number.

    Raises:
        RequestError: it is something else.
    """
    if text in (FULL, SMOKE):
        return 1.0 if text == FULL else 0.0
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise RequestError(
            "scale",
            f"the scale {text!r} is not usable: give '{FULL}', '{SMOKE}', or a number above 0 and"
            " up to 1",
        )
    return share


def scaled(protocol: Protocol, share: float) -> Protocol:
    """The protocol at about this share of its cost.

    The cost of each experiment is a product of two numbers (rates and samples, rounds and samples),
    so each is multiplied by the square root of the share. Steps, ranges of rates and sampling
    parameters stay.

    Args:
        protocol: at full scale.
        share: 0 (the least) to 1.
    """

    def fewer(full: int, fewest: int) -> int:
        return min(full, max(fewest, round(full * math.sqrt(share))))

    def fewer_rates(rates: RateRange) -> RateRange:
        return replace(rates, count=fewer(rates.count, _FEWEST_RATES))

    one, batch = protocol.one_fact, protocol.batch_of_ten
    sweep, many = protocol.rate_sweep, protocol.many_steps
    return replace(
        protocol,
        one_fact=OneFact(fewer_rates(one.rates), fewer(one.samples, _FEWEST_SAMPLES)),
        batch_of_ten=replace(
            batch,
            rounds=fewer(batch.rounds, _FEWEST_ROUNDS),
            samples=fewer(batch.samples, _FEWEST_SAMPLES),
        ),
        rate_sweep=replace(
            sweep, rates=fewer_rates(sweep.rates), samples=fewer(sweep.samples, _FEWEST_SAMPLES)
        ),
        many_steps=replace(
            many,
            asked=fewer(many.asked, _FEWEST_ASKED),
            samples=fewer(many.samples, _FEWEST_SAMPLES),
        ),
    )


def describe_scale(full: Protocol, used: Protocol, experiments: Sequence[int]) -> str:
    """What is left of these experiments, for every output; `full scale` if all of it."""
    if used == full:
        return "full scale"
    one, batch = used.one_fact, used.batch_of_ten
    sweep, many = used.rate_sweep, used.many_steps
    shares = {
        1: f"{one.rates.count} of {full.one_fact.rates.count} rates,"
        f" {one.samples} of {full.one_fact.samples} samples",
        2: f"{batch.rounds * batch.samples:,} of"
        f" {full.batch_of_ten.rounds * full.batch_of_ten.samples:,} samples a question",
        3: f"{sweep.rates.count} of {full.rate_sweep.rates.count} rates,"
        f" {sweep.samples} of {full.rate_sweep.samples} samples",
        4: f"asked after {many.asked} of {full.many_steps.asked} steps,"
        f" {many.samples} of {full.many_steps.samples} samples",
    }
    parts = "; ".join(f"experiment {number}: {shares[number]}" for number in experiments)
    return f"REDUCED SCALE: {parts}"
