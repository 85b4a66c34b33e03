"""What a device allows: how fast it copies and multiplies, and the least time that work can take.

Work is counted in the bytes of fp32 that must be read or written at least, and in multiplications
and additions; the slower of the two is the limit. Norms, attention scores, activations and launches
are left out, so the limit is never reached.

    a pass over texts   reads each matrix once; 2 operations for each weight and token, for the
                        output matrix only where the next token is wanted
    its way back        reads them again; 2 more for each, and 2 for each weight that is trained
    a step              reads and writes each trained weight; the gradient, a product of few
                        columns, need not be in memory
    rates               one more pass of a row for each, which reads a direction with each weight
    a sampled token     its share of a pass, and the keys and values of the text before it; what
                        samples of one prompt could share is not considered
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from agent.learner.training.update import trained_parameters
from eval.bench.figure import Figure, compare
from eval.bench.rounds import Way, timed

FLOAT_BYTES = 4
ROUNDS, REPEATED = 7, 3
# By kind of device: bytes of what is copied, and the size of the square matrices.
COPIED = {"cpu": 1 << 28, "cuda": 1 << 30}
SQUARE = {"cpu": 1536, "cuda": 8192}


@dataclass(frozen=True, slots=True)
class Work:
    """The cost of something.

    Attributes:
        bytes: read and written.
        operations: multiplications and additions.
    """

    bytes: float
    operations: float

    def __add__(self, other: Work) -> Work:
        return Work(self.bytes + other.bytes, self.operations + other.operations)

    def __mul__(self, times: int) -> Work:
        return Work(self.bytes * times, self.operations * times)


@dataclass(slots=True)
class Roofline:
    """What a device can do in a second: the best of all measurements.

    Attributes:
        bytes: copied; read and written bytes together.
        operations: of products of large matrices, in the learner's precision on that device.
        half_operations: in half precision; equal to `operations` where it is not used.
        figures: the measurements.
        measure: measures once more: GB/s first, then Tflop/s; None keeps the figures.
    """

    bytes: float = 0.0
    operations: float = 0.0
    half_operations: float = 0.0
    figures: tuple[Figure, ...] = ()
    measure: Callable[[], tuple[Figure, ...]] | None = None

    def seconds(self, work: Work, *, half: bool = False) -> float:
        """The least time that work can take; to be called after the work was timed.

        Measures again: a measurement is short, and other load slows it down. Limits from a
        single measurement have been beaten (docs/LOG.md).

        Args:
            work: in fp32.
            half: it was done in half precision, with half the bytes.
        """
        self.measure_again()
        if half:
            return max(work.bytes / 2 / self.bytes, work.operations / self.half_operations)
        return max(work.bytes / self.bytes, work.operations / self.operations)

    def measure_again(self) -> None:
        """Measures, and keeps what is better than before."""
        if self.measure is None:
            return
        found = self.measure()
        known = self.figures or found
        self.figures = tuple(
            max(pair, key=lambda figure: figure.baseline) for pair in zip(known, found, strict=True)
        )
        self.bytes = self.figures[0].baseline * 1e9
        self.operations = self.figures[1].baseline * 1e12
        self.half_operations = self.figures[-1].baseline * 1e12


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a model.

    Attributes:
        trained: weights that updates change.
        head: weights of the output matrix.
        state_bytes: keys and values of one token.
    """

    trained: int
    head: int
    state_bytes: int

    @classmethod
    def of(cls, model: Any) -> Sizes:
        """Of a causal LM."""
        config = model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None)
        width = width or config.hidden_size // config.num_attention_heads
        return cls(
            trained=sum(p.numel() for p in trained_parameters(model).values()),
            head=model.get_output_embeddings().weight.numel(),
            state_bytes=2 * config.num_hidden_layers * heads * width * FLOAT_BYTES,
        )

    def update(self, tokens: int, places: int) -> Work:
        """One step down the loss of texts.

        Args:
            tokens: of all texts.
            places: positions whose next token is in the loss.
        """
        forward = self._forward(tokens, places)
        backward = forward + Work(0, 2 * self.trained * tokens)
        return forward + backward + Work(2 * FLOAT_BYTES * self.trained, 0)

    def profile(self, rates: int, tokens: int, places: int) -> Work:
        """The probabilities of one text after a step at each rate, along a known direction."""
        seen = self._forward(rates * tokens, rates * places)
        return seen + Work(FLOAT_BYTES * self.trained, 2 * self.trained * rates * tokens)

    def token(self, rows: int, context: float) -> Work:
        """One sampled token.

        Args:
            rows: texts that are sampled together.
            context: tokens before it, on average.
        """
        once = self._forward(1, 1)
        return Work(once.bytes / rows + context * self.state_bytes, once.operations)

    def _forward(self, tokens: int, places: int) -> Work:
        return Work(
            FLOAT_BYTES * (self.trained + self.head),
            2 * (self.trained * tokens + self.head * places),
        )


def measure_roofline(device: torch.device, description: str) -> Roofline:
    """Measures a device.

    Args:
        device: as the learner uses it, see `as_the_learner`.
        description: of the device, for figures.
    """
    roofline = Roofline(measure=lambda: _measured(device, description))
    roofline.measure_again()
    return roofline


def _measured(device: torch.device, description: str) -> tuple[Figure, ...]:
    on_gpu = device.type == "cuda"
    source = torch.ones(COPIED[device.type] // FLOAT_BYTES, device=device)
    target = torch.empty_like(source)
    copied = 2 * COPIED[device.type]
    figures = [
        _rate("copy", device, lambda: target.copy_(source), copied / 1e9, "GB/s", description),
        _products("TF32" if on_gpu else "fp32", torch.float32, device, description),
    ]
    if on_gpu:
        figures.append(_products("fp16", torch.float16, device, description))
    return tuple(figures)


def _products(name: str, dtype: torch.dtype, device: torch.device, description: str) -> Figure:
    size = SQUARE[device.type]
    # Random numbers: a GPU takes less power for constant ones, and is faster then.
    left, right = (torch.rand((size, size), device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return _rate(
        f"matrix products, {name}",
        device,
        lambda: torch.mm(left, right, out=out),
        2 * size**3 / 1e12,
        "Tflop/s",
        description,
    )


def _rate(
    name: str,
    device: torch.device,
    work: Callable[[], object],
    amount: float,
    unit: str,
    description: str,
) -> Figure:
    """The median compared with the best round, from which limits are computed."""

    def repeated() -> None:
        for _ in range(REPEATED):
            work()

    way = Way(repeated)
    timed(way, device)
    seconds = [timed(way, device) / REPEATED for _ in range(ROUNDS)]
    middle, best = amount / statistics.median(seconds), amount / min(seconds)
    name = f"device: {name}, median beside best of {ROUNDS}"
    return compare(name, middle, best, unit, device=description)
