"""The backend with a real model."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from agent.errors import LearningFailedError
from agent.learner.engine.cuda_graphs import Runner
from agent.learner.inference.encoding import Encoder
from agent.learner.sampling import sampler as sampling
from agent.learner.sampling.sampler import CellResult, Sampler, Sampling
from agent.learner.training.paper_step import Descent, descent, paper_batch
from agent.learner.training.update import score_answers, take_step
from agent.models.loading import LoadedModel
from agent.teaching.prompts import answer_text, paper_text
from eval.suites.paper.measurements import Measurement
from eval.suites.paper.protocol import Drawn, Fixed
from eval.suites.paper.trials import Call, Cell, CellKey

# Texts at once, by kind of device.
ROWS = {"cpu": 256, "cuda": 2048}
# Tokens that are sampled after a prompt that leaves no room for an answer.
ROOM_WITHOUT_ROOM = 30
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A cell with the sampling settings of its call for this model."""

    cell: Cell
    sampling: Sampling


def samples_in_half(device: torch.device) -> bool:
    """Whether texts are sampled in fp16; in fp32 a GPU would spend most time in matrix products."""
    return device.type == "cuda"


def paper_sampler(loaded: LoadedModel, rows: int | None = None) -> Sampler:
    """The sampler of the suite.

    Args:
        loaded: the model.
        rows: texts at once; None chooses by device.
    """
    return Sampler(
        loaded.model,
        loaded.tokenizer,
        eos=loaded.eos_token_id,
        rows=rows or ROWS[loaded.device.type],
        max_tokens=loaded.max_tokens,
        half=samples_in_half(loaded.device),
    )


class ModelBackend:
    """A `TrialBackend` for a causal language model, whose weights it changes and restores.

    Args:
        loaded: at its base checkpoint.
        seed: of the run.
        estimates: also estimate rare answers along the sampled paths.
        rows: texts at once; None chooses by device.
    """

    def __init__(
        self, loaded: LoadedModel, *, seed: int, estimates: bool, rows: int | None = None
    ) -> None:
        self._model = loaded.model
        self._parameters: list[torch.Tensor] = list(loaded.model.parameters())
        self._base = [parameter.detach().clone() for parameter in self._parameters]
        self._at_base = True
        self._first: tuple[tuple[Pair, ...], Descent] | None = None
        self._failed = False
        self._runner = Runner(loaded.device)
        self._encoder = Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device)
        self._in_half = samples_in_half(loaded.device)
        self._sampler = paper_sampler(loaded, rows)
        self._seed, self._estimates = seed, estimates
        self._lengths: dict[str, int] = {}

    @torch.no_grad()
    def back_to_base(self) -> None:
        """Restores the weights of the base model."""
        if not self._at_base:
            torch._foreach_copy_(self._parameters, self._base)
        self._at_base, self._failed = True, False

    def step(self, pairs: Sequence[Pair], learning_rate: float) -> float:
        """Takes one step of a new AdamW on a batch of these pairs.

        Returns:
            The loss before it, in nats a token; NaN if it or its gradient is not finite. The
            weights are useless then, as they would be in the scripts.
        """
        if self._failed:
            return math.nan
        try:
            found = self._descent(tuple(pairs))
        except LearningFailedError:
            self._failed = True
            return math.nan
        take_step(self._parameters, found.directions, learning_rate)
        self._at_base = False
        return found.loss

    def ask(self, calls: Sequence[Call], done: Container[CellKey]) -> Iterator[Measurement]:
        """Measures the cells that are not done; yields each as soon as it is measured.

        Raises:
            ModelError: there is not enough memory for a single text.
        """
        asked = [
            _Asked(cell, settings)
            for call in calls
            for settings in [self._settings(call)]
            for cell in call.cells
            if cell.key not in done
        ]
        exact = self._log_probabilities({(one.cell.question, one.cell.answer) for one in asked})
        sound: list[_Asked] = []
        broken: list[_Asked] = []
        for one in asked:
            known = exact[one.cell.question, one.cell.answer] is not None
            (sound if known else broken).append(one)
        for one in broken:
            yield _measured(one, None, _NOTHING)
        cells = [self._sampled_cell(one) for one in sound]
        for number, found in self._sampler.finished(cells):
            one = sound[number]
            yield _measured(one, exact[one.cell.question, one.cell.answer], found)

    def notes(self, calls: Iterable[Call]) -> list[str]:
        """Deviations from the protocol that this model and this device require."""
        notes = []
        if any(self._room(call) <= 0 for call in calls):
            notes.append(
                f"NOT THE PROTOCOL: max_length {Fixed().max_length} counts the prompt, and some"
                " prompts have more tokens than that with this model's tokenizer. After those"
                f" {ROOM_WITHOUT_ROOM} tokens are sampled instead."
            )
        if self._in_half:
            notes.append(
                "Texts were sampled in half precision (fp16, sums fp32), which moves a probability"
                " by thousandths of itself; steps and exact probabilities are fp32."
            )
        return notes

    def _descent(self, pairs: tuple[Pair, ...]) -> Descent:
        # All rates of a sweep start with the same gradient of the base model.
        if self._at_base and self._first is not None and self._first[0] == pairs:
            return self._first[1]
        self._first = None  # freed before the next one: each is as large as the model
        found = descent(self._model, paper_batch(self._encoder, pairs), self._runner)
        if self._at_base:
            self._first = (pairs, found)
        return found

    def _settings(self, call: Call) -> Sampling:
        how = call.sampling
        if isinstance(how, Drawn):
            limit = how.max_new_tokens
        else:
            limit = self._room(call)
            limit = limit if limit > 0 else ROOM_WITHOUT_ROOM
        return Sampling(
            temperature=how.temperature, top_p=how.top_p, top_k=how.top_k, max_new_tokens=limit
        )

    def _room(self, call: Call) -> int:
        """Tokens that may follow the prompts of a call; always enough where they are drawn."""
        if isinstance(call.sampling, Drawn):
            return call.sampling.max_new_tokens
        # The scripts pad a batch on the left, and the padding counts.
        longest = max(self._prompt_tokens(cell.question) for cell in call.cells)
        return call.sampling.max_length - longest

    def _prompt_tokens(self, question: str) -> int:
        if question not in self._lengths:
            self._lengths[question] = len(self._encoder.encode(question))
        return self._lengths[question]

    def _sampled_cell(self, one: _Asked) -> sampling.Cell:
        return sampling.Cell(
            prompt=one.cell.question,
            answer=one.cell.answer,
            samples=one.cell.samples,
            sampling=one.sampling,
            key=one.cell.key.name(self._seed),
            estimate=self._estimates,
        )

    @torch.inference_mode()
    def _log_probabilities(self, pairs: set[Pair]) -> dict[Pair, float | None]:
        """Of exactly the answer after `Q: {question} A:`; None where it is not finite."""
        if self._failed:
            return dict.fromkeys(pairs)
        if not pairs:
            return {}
        ordered = sorted(pairs)
        batch = self._encoder.rows(
            [self._encoder.encode(paper_text(question, "").rstrip()) for question, _ in ordered],
            [self._encoder.encode(answer_text(answer)) for _, answer in ordered],
        )
        found = score_answers(self._model, batch, self._runner).log_probability.tolist()
        return {
            pair: value if math.isfinite(value) else None
            for pair, value in zip(ordered, found, strict=True)
        }


_NOTHING = CellResult(samples=0, correct=0, tokens=0, texts=(), correct_texts=())


def _measured(one: _Asked, log_probability: float | None, found: CellResult) -> Measurement:
    estimate = found.estimate
    assert one.sampling.max_new_tokens is not None
    return Measurement(
        key=one.cell.key,
        question=one.cell.question,
        answer=one.cell.answer,
        samples=one.cell.samples,
        correct=found.correct,
        log_probability=log_probability,
        estimate=estimate.probability if estimate else None,
        estimate_error=estimate.standard_error if estimate else None,
        temperature=one.sampling.temperature,
        top_p=one.sampling.top_p,
        top_k=one.sampling.top_k,
        max_new_tokens=one.sampling.max_new_tokens,
        tokens=found.tokens,
        extra_tokens=estimate.extra_tokens if estimate else 0,
        examples=tuple(dict.fromkeys((*found.correct_texts, *found.texts))),
    )
