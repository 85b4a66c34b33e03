"""The numbers that the paper and its author's notebooks report, all of Pythia-410m."""

from __future__ import annotations

from dataclasses import dataclass

from eval.metrics import Count

MODEL = "pythia-410m"

# Denominators of Tables 1 and 2: as printed in the paper, and as in its script (100 rounds of 80).
AS_PRINTED = 80_000
AS_CODED = 8_000


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """Right answers to a question before and after the step, of `AS_PRINTED` or `AS_CODED`."""

    before: int
    after: int

    def counts(self, total: int) -> tuple[Count, Count]:
        """Both, of this denominator."""
        return Count(self.before, total), Count(self.after, total)


# In the order of the facts: Zogron, Blipland, Xylophone, Yonder, Quizzle, Frobble, Nibiru, Kyzara,
# Trivor, Plimp.
TABLE_1 = tuple(
    BeforeAfter(before, after)
    for before, after in zip(
        (0, 0, 0, 0, 2, 0, 0, 0, 2, 0), (370, 1, 9, 1, 1, 163, 5, 10, 393, 3), strict=True
    )
)
TABLE_2 = tuple(
    BeforeAfter(before, after)
    for before, after in zip(
        (0, 2, 0, 0, 0, 0, 0, 0, 0, 0), (311, 0, 0, 1, 0, 58, 15, 1, 313, 2), strict=True
    )
)


@dataclass(frozen=True, slots=True)
class ReadOff:
    """Right answers of 800 to the Zogron question, taught alone in one step.

    Attributes:
        learning_rate: of the step.
        correct: of `FIGURE_1_SAMPLES`.
        within: the error of the number: 0 if printed, otherwise it was read off a plot.
    """

    learning_rate: float
    correct: int
    within: int


FIGURE_1_SAMPLES = 800
FIGURE_1 = (
    ReadOff(1e-6, 0, 0),
    ReadOff(2.14e-5, 50, 0),
    ReadOff(4.18e-5, 215, 0),
    ReadOff(6.22e-5, 390, 0),
    ReadOff(8e-5, 501, 10),
    ReadOff(1e-4, 491, 10),
    ReadOff(1.2e-4, 392, 10),
    ReadOff(1.4e-4, 331, 10),
    ReadOff(1.6e-4, 234, 10),
    ReadOff(2e-4, 166, 10),
    ReadOff(3e-4, 100, 10),
    ReadOff(5e-4, 0, 10),
)
# Training loss of the Zogron fact before the first step, nats a token, padding masked.
ZOGRON_LOSS = 4.220
