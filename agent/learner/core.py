"""The learner: one model that is taught one fact at a time.

Long work is a generator that yields after each unit (a gradient step, a token), so that whoever
drives it can do something more urgent in between. This is all that the learner's process, notebooks
and suites call, which makes it longer than other modules; the work is done by the modules of
`training`, `sampling` and `inference`.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from agent.errors import (
    DriftError,
    InvalidFactError,
    ModelError,
    SnapshotError,
    StaleVersionError,
)
from agent.learner.digest import weights_digest
from agent.learner.engine.cuda_graphs import Runner
from agent.learner.engine.fused_layers import packs_texts
from agent.learner.engine.preemption import Pause, no_pause, pause_between_layers
from agent.learner.environment import describe_environment, device_name
from agent.learner.inference.encoding import Encoder
from agent.learner.inference.generation import (
    PendingQuestion,
    generate_answers,
    stream_answer,
    stream_answers,
)
from agent.learner.inference.probes import count_samples, probe
from agent.learner.sampling.sampler import Sampler
from agent.learner.training.attempt import Workbench, replay_steps
from agent.learner.training.base_answers import BaseAnswers
from agent.learner.training.consolidation import consolidate
from agent.learner.training.epoch_checkpoint import EpochCheckpoint
from agent.learner.training.fact_training import FactTraining, all_questions
from agent.learner.training.general_text import GeneralTextPool
from agent.learner.training.update import score_answers
from agent.learner.weight_copies import WeightCopies
from agent.models.loading import LoadedModel
from agent.models.token_budget import TokenBudget
from agent.teaching.algorithm import ALGORITHM, BOUNDED, CONSOLIDATION, REPLAYED
from agent.teaching.consolidation import Consolidated, ConsolidationPlan, Epoch
from agent.teaching.plan import LessonPlan
from agent.teaching.real_questions import ordinary_question
from agent.teaching.types import (
    GENERAL_TEXT,
    Answer,
    Example,
    Generated,
    LearnerDescription,
    Opening,
    Outcome,
    ReplayedUpdate,
)
from memory_store.vocabulary import Step, Update, Verdict

logger = logging.getLogger(__name__)

# Texts that are sampled together: a question waits for a token of all of them.
SAMPLED_AT_ONCE = {"cpu": 32, "cuda": 256}
# Ordinary questions that a consolidation draws from.
ORDINARY_POOL = 1024


class Learner:
    """A model with its ledger position. Not thread-safe: one thread drives it.

    Args:
        loaded: the base checkpoint.
        pause: called in the middle of long work, where questions may be answered and nothing else
            be done.
        general_text: folder of the memory's own general text; None for a memory without a folder.

    Attributes:
        version: ledger position of the served weights; 0 is the base checkpoint.
        digest: of the served weights.
        weights: the copies, to be measured; only the learner changes them.
    """

    def __init__(
        self, loaded: LoadedModel, pause: Pause = no_pause, general_text: Path | None = None
    ) -> None:
        self._loaded = loaded
        self._pause = pause
        self._encoder = Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device)
        self._room = TokenBudget(self._encoder.encode, loaded.max_tokens)
        self.weights = WeightCopies(loaded.model)
        base = dataclasses.replace(loaded, model=self.weights.base)
        self._general_text = GeneralTextPool(base, self._encoder, general_text)
        self._bench = Workbench(
            working=self.weights.working,
            base=self.weights.base,
            trained=self.weights.trained,
            encoder=self._encoder,
            device=loaded.device,
            runner=Runner(loaded.device, packs=packs_texts(self.weights.working)),
            texts=self._general_text.texts,
            max_tokens=loaded.max_tokens,
        )
        if not self._bench.runner.has_graphs and pause is not no_pause:
            for model in (self.weights.base, self.weights.working):
                pause_between_layers(model, pause)
        self._base_answers = BaseAnswers(
            self.weights.base, self._encoder, self._bench.runner, self.room_to_answer, pause
        )
        self._training = FactTraining(
            self.weights, self._bench, self._base_answers, self._general_text
        )
        self._sampler: Sampler | None = None
        self.version = 0
        self.digest = self._base_digest = weights_digest(self.weights.served)

    def describe(self) -> LearnerDescription:
        """What was loaded, and how far it is."""
        return LearnerDescription(
            device=device_name(self._loaded.device),
            parameters=sum(p.numel() for p in self.weights.served.parameters()),
            model_version=self.version,
            base_digest=self._base_digest,
            tokenizer=self._loaded.tokenizer.backend_tokenizer.to_str(),
            max_tokens=self._loaded.max_tokens,
            environment=describe_environment(self._loaded),
            algorithm=ALGORITHM,
        )

    def learn(self, lesson: LessonPlan) -> Iterator[Opening | Step | Outcome]:
        """Learns one fact on the working copy; `commit` serves it.

        Yields:
            Each step once its effect is known, an opening before the first one of each attempt, and
            last the outcome.

        Raises:
            InvalidFactError: the fact is longer than this model learns.
            StaleVersionError: the served weights are at another version than the lesson's base.
            LearningFailedError: the loss or the weights are not finite; the weights are put back
                before the next update.
        """
        if lesson.base_version != self.version:
            raise StaleVersionError(
                f"the learner is at version {self.version}, not at {lesson.base_version}"
            )
        self._require_room(lesson.example)
        yield from self._training.run(lesson, self.digest)

    def _require_room(self, example: Example) -> None:
        """The server does the same, but not before it has the tokenizer."""
        self._room.require(example.question, example.answer)
        for index, question in enumerate(example.correlated_questions):
            self._room.require(question, example.answer, f"correlated_questions[{index}]")

    def consolidate(
        self, plan: ConsolidationPlan, checkpoints: Path | None = None
    ) -> Generator[Epoch | Consolidated | None]:
        """Learns all facts together from the base weights, on the working copy; `commit` serves it.

        Args:
            plan: see there.
            checkpoints: folder where an interrupted one is resumed from; None: it begins anew.

        Yields:
            None after each step; the summary of each epoch that is not resumed; last the result.

        Raises:
            LearningFailedError: the loss is not finite.
        """
        self.weights.start_from_base()
        draw = random.Random(f"{plan.seed} ordinary")
        asked = sorted({ordinary_question(draw) for _ in range(ORDINARY_POOL)})
        ordinary: list[tuple[str, str]] = []
        if plan.settings.ordinary:
            ordinary = list(zip(asked, self._base_answers.of_many(asked), strict=True))
        said = self._base_answers.of_many([fact.question for fact in plan.facts])
        answered = tuple(
            dataclasses.replace(fact, base_answer=answer)
            for fact, answer in zip(plan.facts, said, strict=True)
        )
        checkpoint = None
        if checkpoints is not None:
            checkpoint = EpochCheckpoint(checkpoints, f"{self._base_digest} {plan.digest}")
        prepared = dataclasses.replace(plan, facts=answered)
        yield from consolidate(self._bench, prepared, ordinary, checkpoint)
        self.weights.learned_digest = weights_digest(self.weights.working)
        yield Consolidated(digest=self.weights.learned_digest, algorithm=CONSOLIDATION)

    def forget_texts(self) -> None:
        """Drops the texts that are kept to save work, after one of them was erased.

        They are made again where they are needed, so nothing that is computed changes.
        """
        self._encoder.forget_texts()
        self._room.forget_texts()
        self._base_answers.forget_texts()
        self._sampler = None  # it keeps the prompts and texts of the last fact

    def with_samples(
        self, outcome: Outcome, example: Example, samples: int
    ) -> Generator[None, None, Outcome]:
        """Counts what is said of the fact that was learned last, when the working copy is sampled.

        Yields after each token, on a GPU after some. Changes no weights, and draws no number that
        learning depends on.

        Args:
            outcome: of learning it, not committed yet.
            example: the fact.
            samples: texts for each of its questions, at least 1.

        Returns:
            The outcome with counts; without, if this model cannot be sampled from.
        """
        if outcome.verdict is not Verdict.LEARNED:
            return outcome
        answers = [outcome.after, *outcome.transfer]
        key = f"{example.fact_id} {self.version}"
        try:
            if self._sampler is None:
                self._sampler = Sampler(
                    self.weights.working,
                    self._loaded.tokenizer,
                    eos=self._encoder.eos,
                    rows=SAMPLED_AT_ONCE[self._loaded.device.type],
                    max_tokens=self._loaded.max_tokens,
                )
            after, *transfer = yield from count_samples(
                self._sampler, all_questions(example), answers, samples, key
            )
        except ModelError as error:
            logger.warning("%s is not sampled: %s", example.fact_id, error)
            return outcome
        return dataclasses.replace(outcome, after=after, transfer=tuple(transfer))

    def commit(self, version: int, digest: str) -> None:
        """Serves the working copy from now on.

        Raises:
            StaleVersionError: `version` is not a later one, or `digest` is not that of the
                update learned last.
        """
        learned = self.weights.learned_digest
        if version <= self.version or not learned or digest != learned:
            raise StaleVersionError(
                f"cannot commit version {version} ({digest[:12]}) after version {self.version}"
                f" ({learned[:12] or 'nothing learned'})"
            )
        self.weights.serve()
        self.version, self.digest = version, digest

    def replay(self, row: ReplayedUpdate, *, accept_drift: bool = False) -> Iterator[None]:
        """Applies a ledger row again and serves the result; yields after each step.

        Args:
            row: made on the version that is served now. Rows that take back have no steps.
            accept_drift: go on if the weights come out different.

        Raises:
            StaleVersionError: the row was made on another version.
            DriftError: it was made by another algorithm, or the weights come out different.
        """
        update = row.update
        if update.parent_version != self.version:
            raise StaleVersionError(
                f"cannot replay version {update.model_version}, made on"
                f" {update.parent_version}, after {self.version}"
            )
        if update.steps and update.algorithm not in REPLAYED:
            raise DriftError(
                f"update {update.model_version} was made by {update.algorithm}, but this release"
                f" replays {ALGORITHM}: serve it with the release that made it"
            )
        self.weights.put_back()
        if update.steps:
            if update.policy is None:
                raise DriftError(f"update {update.model_version} was recorded without its policy")
            [example] = self._base_answers.complete([row.example], update.policy)
            rehearsed = self._base_answers.complete(row.rehearsed, update.policy)
            self.weights.change()
            yield from replay_steps(
                self._bench,
                example,
                update.policy,
                update.steps,
                {other.fact_id: other for other in rehearsed},
                bounded=update.algorithm == BOUNDED,
            )
        else:
            # The end of a branch without a fact, which this learner was asked about.
            self.forget_texts()
        digest = weights_digest(self.weights.working)
        if digest != update.digest_after and not accept_drift:
            raise DriftError(self._what_differs(update))
        self.weights.learned_digest = digest
        self.commit(update.model_version, digest)

    def _what_differs(self, update: Update) -> str:
        now = describe_environment(self._loaded)
        if self._general_text.digest and GENERAL_TEXT in update.environment:
            now[GENERAL_TEXT] = self._general_text.digest
        differing = [
            f"{name} {update.environment.get(name, 'unknown')!r}, now {value!r}"
            for name, value in now.items()
            if update.environment.get(name) != value
        ]
        return (
            f"update {update.model_version} came out different from what was recorded"
            f" ({'; '.join(differing) or 'the environment is the same'}). Serve it where it was"
            " learned, or accept the difference with --accept-drift, which measures it"
        )

    def weights_on_cpu(self) -> dict[str, Tensor]:
        """A copy of the served weights that updates change, by name: what a snapshot holds."""
        return self.weights.served_on_cpu()

    def restore(self, weights: Mapping[str, Tensor], version: int, digest: str) -> None:
        """Serves the weights of a snapshot.

        Raises:
            SnapshotError: they are not what the digest says; nothing was changed.
        """
        if self.weights.trained.keys() != weights.keys():
            raise SnapshotError(f"the snapshot of version {version} is of another kind of model")
        if not self.weights.serve_if(weights, digest):
            raise SnapshotError(f"the snapshot of version {version} has other weights than it says")
        self.version, self.digest = version, digest

    def export(self, folder: Path) -> None:
        """Writes the served weights and the tokenizer as a plain Hugging Face checkpoint."""
        self.weights.served.save_pretrained(folder, safe_serialization=True)
        self._loaded.tokenizer.save_pretrained(folder)

    def ask(self, question: str, max_new_tokens: int) -> Iterator[str | Generated]:
        """Pieces of the served model's answer, then the whole.

        Raises:
            InvalidFactError: the question leaves no room for an answer in the model's context.
        """
        limit = min(max_new_tokens, self.room_to_answer(question))
        return stream_answer(self.weights.served, self._encoder, question, limit)

    def ask_together(
        self, asked: Sequence[PendingQuestion]
    ) -> Iterator[list[tuple[int, str | Generated]]]:
        """The served model's answers to several questions; see `stream_answers`.

        Each limit must leave the answer room; see `room_to_answer`.
        """
        return stream_answers(self.weights.served, self._encoder, asked)

    def room_to_answer(self, question: str) -> int:
        """How many tokens an answer to the question can have, at least one.

        Raises:
            InvalidFactError: the question leaves no room for any in the model's context.
        """
        room = self._loaded.max_tokens - self.tokens_of(question)
        if room < 1:
            raise InvalidFactError("question", self._too_long())
        return room

    def tokens_of(self, question: str) -> int:
        """How many tokens the prompt for a question has."""
        return len(self._encoder.prompt(question))

    @torch.inference_mode()
    def score(self, question: str, answer: str) -> tuple[float, int]:
        """Log-probability of exactly this answer and the terminator; and its number of tokens.

        Raises:
            InvalidFactError: question and answer are longer than the model's context.
        """
        batch = self._encoder.batch([(question, answer)])
        if batch.input_ids.shape[1] > self._loaded.max_tokens:
            raise InvalidFactError("question", self._too_long())
        scores = score_answers(self.weights.served, batch)
        return scores.log_probability.item(), int(scores.tokens.item())

    def _too_long(self) -> str:
        # Beyond its context a model with learned positions reads past a table, which on CUDA
        # ends the process.
        return f"with its answer it exceeds the model's {self._loaded.max_tokens} tokens"

    def free_memory(self) -> None:
        """Gives back what is kept for speed alone, after memory has run out."""
        self._sampler = None
        self._bench.runner.clear()
        self.free_cached_memory()

    def free_cached_memory(self) -> None:
        """Gives back what nothing uses; may be called in the middle of an update."""
        gc.collect()
        if self._loaded.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def workbench(self) -> Workbench:
        """What updates are made with, to be measured: its working weights are nobody's yet."""
        return self._bench

    @property
    def device(self) -> str:
        """As in `LearnerDescription`."""
        return device_name(self._loaded.device)

    @property
    def model(self) -> PreTrainedModel:
        """The served weights, to be measured, never changed."""
        return self.weights.served

    @property
    def encoder(self) -> Encoder:
        """The tokenizer, as questions are asked with it."""
        return self._encoder

    def probe(self, example: Example) -> list[Answer]:
        """The served model's answers to the fact's question and each correlated one, in order."""
        return self.probe_pairs(all_questions(example))

    def probe_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        """The served model's answers to some questions, each with the answer expected."""
        return probe(
            self.weights.served,
            self._encoder,
            pairs,
            always_generate=True,
            generate=partial(generate_answers, pause=self._pause),
        )
