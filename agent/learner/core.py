"""The learner: one model that is taught one fact at a time.

It holds three copies of the weights. The *served* copy is that of a committed ledger position and
answers every question; the *working* copy is what an update changes. So a question in the middle
of an update is answered by weights that have a version, and putting an update back is a copy. The
*base* copy never changes: guards hold an update to what it says.

Long work is a generator that yields after each unit (a gradient step, a token), so that whoever
drives it can do something more urgent in between.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import logging
import math
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from agent.errors import (
    DriftError,
    InvalidFactError,
    LearningFailedError,
    ModelError,
    SnapshotError,
    StaleVersionError,
)
from agent.learner.digest import weights_digest
from agent.learner.engine.cuda_graphs import Runner
from agent.learner.engine.fused_layers import TRITON, Operations, fuse, kernels_for, packs_texts
from agent.learner.engine.preemption import Pause, no_pause, pause_between_layers
from agent.learner.environment import describe_environment, device_name
from agent.learner.inference.encoding import Encoder
from agent.learner.inference.generation import (
    Asked,
    answer_alone,
    generate_answers,
    stream_answer,
    stream_answers,
)
from agent.learner.inference.probes import count_samples, probe, score_pairs
from agent.learner.sampling.sampler import Sampler
from agent.learner.training.attempt import Attempt, Workbench, needs_base_answers, replay_steps
from agent.learner.training.consolidation import ConsolidationSettings, Epoch, consolidate
from agent.learner.training.general_text import GeneralText, general_text_of
from agent.learner.training.guards import rehearsed_of
from agent.learner.training.update import score_answers, trained_parameters
from agent.models.loading import LoadedModel
from agent.models.token_budget import Room
from agent.teaching import rates
from agent.teaching.algorithm import ALGORITHM, BOUNDED, REPLAYED
from agent.teaching.guard_presets import NONE, compared_facts
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
from memory_store.vocabulary import Guards, Policy, Refusal, Step, Update, Verdict

logger = logging.getLogger(__name__)

# Texts that are sampled together: a question waits for a token of all of them.
SAMPLED_AT_ONCE = {"cpu": 32, "cuda": 256}
# Ordinary questions that a consolidation draws from.
ORDINARY_POOL = 1024
# Questions that the base model answers in one batch.
BASE_ANSWERS_AT_ONCE = 128
# Tokens of the base model's answer that are looked at; its neighbours are held to fewer.
BASE_ANSWER_TOKENS = 16


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
    """

    def __init__(
        self, loaded: LoadedModel, pause: Pause = no_pause, general_text: Path | None = None
    ) -> None:
        self._loaded = loaded
        self._pause = pause
        self._encoder = Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device)
        self._room = Room(self._encoder.encode, loaded.max_tokens)
        self._served = loaded.model.requires_grad_(False)
        self._base = _copy_of(self._served)
        self._working = _copy_of(self._served)
        if kernels_for(loaded.device.type) == TRITON:
            for model in (self._served, self._base, self._working):
                fuse(model, Operations.by_triton())
        trained = trained_parameters(self._working)
        self._trained = [p.requires_grad_(True) for p in trained.values()]
        self._trained_served = list(trained_parameters(self._served).values())
        self._bench = Workbench(
            working=self._working,
            base=self._base,
            trained=trained,
            encoder=self._encoder,
            device=loaded.device,
            runner=Runner(loaded.device, packs=packs_texts(self._working)),
            texts=self._texts,
            max_tokens=loaded.max_tokens,
        )
        if not self._bench.runner.has_graphs and pause is not no_pause:
            for model in (self._base, self._working):
                pause_between_layers(model, pause)
        self._general_text: GeneralText | None = None
        self._general_text_folder = general_text
        self._base_answers: dict[str, str] = {}  # by question
        self._sampler: Sampler | None = None
        self._working_differs = False
        self._outcome_digest = ""
        self.version = 0
        self.digest = self._base_digest = weights_digest(self._served)

    def describe(self) -> LearnerDescription:
        """What was loaded, and how far it is."""
        return LearnerDescription(
            device=device_name(self._loaded.device),
            parameters=sum(p.numel() for p in self._served.parameters()),
            model_version=self.version,
            base_digest=self._base_digest,
            tokenizer=self._loaded.tokenizer.backend_tokenizer.to_str(),
            max_tokens=self._loaded.max_tokens,
            environment=describe_environment(self._loaded),
            algorithm=ALGORITHM,
        )

    def learn(
        self, example: Example, policy: Policy, base_version: int, older: Sequence[Example]
    ) -> Iterator[Opening | Step | Outcome]:
        """Learns one fact on the working copy; `commit` serves it.

        Args:
            example: the fact.
            policy: how its rate is chosen and when to stop.
            base_version: the ledger position that the update is to be based on.
            older: facts learned before; guards look at the first ones, all are probed after.

        Yields:
            Each step once its effect is known, an opening before the first one of each attempt, and
            last the outcome.

        Raises:
            InvalidFactError: the fact is longer than this model learns.
            StaleVersionError: the served weights are at another position.
            LearningFailedError: the loss or the weights are not finite; the weights are put back
                before the next update.
        """
        if base_version != self.version:
            raise StaleVersionError(
                f"the learner is at version {self.version}, not at {base_version}"
            )
        self._put_back()
        self._require_room(example)
        question = [(example.question, example.answer)]
        before = self._asked(question)
        guards = policy.guards or NONE
        example = self._with_base_answer(example, guards)
        if math.exp(before.log_probability) >= rates.KNOWN_PROBABILITY:
            yield self._outcome(rates.Decision(Verdict.KNOWN), None, example, before, before, ())
            return

        candidates = older[: compared_facts(policy)]
        looked_at = self._bench.log_probabilities(_own_questions(candidates))
        held = [math.exp(log_probability) for log_probability in looked_at]
        rehearsed = rehearsed_of(candidates, held, guards.rehearsed)
        examples = [self._with_base_answer(other, guards) for other in rehearsed]
        first, *gentler = [
            Attempt(self._bench, example, tried, examples) for tried in rates.attempts(policy)
        ]
        attempt = first
        forgetting = yield from self._attempt(attempt, before, candidates, held, older)
        for again in gentler:
            if not attempt.gate_failed:
                break
            self._put_back()
            attempt = again
            forgetting = yield from self._attempt(attempt, before, candidates, held, older)
        if not attempt.learned:
            self._put_back()
            attempt = first  # what is told of a fact that resisted is what was asked for
        after = self._asked(question)
        assert attempt.decision is not None
        yield self._outcome(attempt.decision, attempt, example, before, after, forgetting)

    def _require_room(self, example: Example) -> None:
        """The server does the same, but not before it has the tokenizer."""
        self._room.require(example.question, example.answer)
        for index, question in enumerate(example.correlated_questions):
            self._room.require(question, example.answer, f"correlated_questions[{index}]")

    def _attempt(
        self,
        attempt: Attempt,
        before: Answer,
        candidates: Sequence[Example],
        held: Sequence[float],
        older: Sequence[Example],
    ) -> Generator[Opening | Step, None, list[Answer]]:
        """Takes an attempt's steps, and more of them while an older fact is lost by it.

        Returns:
            The older facts' answers after it, if it ended well.
        """
        self._working_differs = True
        while True:
            for step in attempt.steps():
                if len(attempt.taken) == 1:
                    asked = attempt.example.base_answer
                    yield Opening(before=before, curve=attempt.curve, base_answer=asked)
                yield step
            # Nothing is forgotten by an update that is not made.
            if not attempt.learned or not attempt.pass_gate():
                return []
            forgetting = self._forgetting(older)
            lost = [
                candidate
                for candidate, then, now in zip(candidates, held, forgetting, strict=False)
                if then >= rates.HELD_PROBABILITY > math.exp(now.log_probability)
            ]
            mends = attempt.policy.name in rates.UNTIL_LEARNED
            if not lost or not (mends or attempt.policy.gated):
                return forgetting
            known = {other.fact_id for other in attempt.rehearsed}
            new = [other for other in lost if other.fact_id not in known]
            if not mends or not new or len(attempt.taken) >= attempt.policy.max_steps:
                ids = ", ".join(other.fact_id for other in lost[:3])
                attempt.decision = rates.Decision(
                    Verdict.RESISTED, f"{ids} would be lost for it", Refusal.FACT_LOST
                )
                return []
            guards = attempt.policy.guards or NONE
            attempt.rehearsed = [
                *attempt.rehearsed,
                *(self._with_base_answer(other, guards) for other in new),
            ]

    def consolidate(
        self, facts: Sequence[Example], settings: ConsolidationSettings, seed: int
    ) -> Generator[Epoch | None, None, str]:
        """Learns all facts together from the base weights, on the working copy.

        `commit` serves the result.

        Args:
            facts: in the order of teaching.
            settings: see there.
            seed: of all random choices.

        Yields:
            See `consolidation.consolidate`.

        Returns:
            The digest of the weights.

        Raises:
            LearningFailedError: the loss is not finite.
        """
        self._working_differs, self._outcome_digest = True, ""
        _copy(list(trained_parameters(self._base).values()), self._trained)
        draw = random.Random(f"{seed} ordinary")
        asked = sorted({ordinary_question(draw) for _ in range(ORDINARY_POOL)})
        ordinary = zip(asked, self._base_says(asked), strict=True) if settings.ordinary else ()
        said = self._base_says([fact.question for fact in facts])
        answered = [
            dataclasses.replace(fact, base_answer=answer)
            for fact, answer in zip(facts, said, strict=True)
        ]
        yield from consolidate(self._bench, answered, settings, seed, list(ordinary))
        self._outcome_digest = weights_digest(self._working)
        return self._outcome_digest

    def _base_says(self, questions: Sequence[str]) -> list[str]:
        """The base model's answer to each question, generated in batches."""
        found = []
        for start in range(0, len(questions), BASE_ANSWERS_AT_ONCE):
            batch = questions[start : start + BASE_ANSWERS_AT_ONCE]
            limits = [BASE_ANSWER_TOKENS] * len(batch)
            found += generate_answers(self._base, self._encoder, batch, limits, pause=self._pause)
        return [answer.text for answer in found]

    def forget_texts(self) -> None:
        """Drops the texts that are kept to save work, after one of them was erased.

        They are made again where they are needed, so nothing that is computed changes.
        """
        self._encoder.forget_texts()
        self._room.forget_texts()
        self._base_answers.clear()
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
                    self._working,
                    self._loaded.tokenizer,
                    eos=self._encoder.eos,
                    rows=SAMPLED_AT_ONCE[self._loaded.device.type],
                    max_tokens=self._loaded.max_tokens,
                )
            after, *transfer = yield from count_samples(
                self._sampler, _questions(example), answers, samples, key
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
        learned = self._outcome_digest
        if version <= self.version or not learned or digest != learned:
            raise StaleVersionError(
                f"cannot commit version {version} ({digest[:12]}) after version {self.version}"
                f" ({learned[:12] or 'nothing learned'})"
            )
        _copy(self._trained, self._trained_served)
        self._working_differs = False
        self._outcome_digest = ""
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
        self._put_back()
        if update.steps:
            if update.policy is None:
                raise DriftError(f"update {update.model_version} was recorded without its policy")
            guards = update.policy.guards or NONE
            self._working_differs = True
            yield from replay_steps(
                self._bench,
                self._with_base_answer(row.example, guards),
                update.policy,
                update.steps,
                {o.fact_id: self._with_base_answer(o, guards) for o in row.rehearsed},
                bounded=update.algorithm == BOUNDED,
            )
        else:
            # The end of a branch without a fact, which this learner was asked about.
            self.forget_texts()
        digest = weights_digest(self._working)
        if digest != update.digest_after and not accept_drift:
            raise DriftError(self._what_differs(update))
        self._outcome_digest = digest
        self.commit(update.model_version, digest)

    def _what_differs(self, update: Update) -> str:
        now = describe_environment(self._loaded)
        if self._general_text is not None and GENERAL_TEXT in update.environment:
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
        return {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in trained_parameters(self._served).items()
        }

    def restore(self, weights: Mapping[str, Tensor], version: int, digest: str) -> None:
        """Serves the weights of a snapshot.

        Raises:
            SnapshotError: they are not what the digest says; nothing was changed.
        """
        trained = trained_parameters(self._served)
        if trained.keys() != weights.keys():
            raise SnapshotError(f"the snapshot of version {version} is of another kind of model")
        self._working_differs = True
        _copy([weights[name] for name in trained], self._trained)
        if weights_digest(self._working) != digest:
            raise SnapshotError(f"the snapshot of version {version} has other weights than it says")
        _copy(self._trained, self._trained_served)
        self._working_differs, self._outcome_digest = False, ""
        self.version, self.digest = version, digest

    def export(self, folder: Path) -> None:
        """Writes the served weights and the tokenizer as a plain Hugging Face checkpoint."""
        self._served.save_pretrained(folder, safe_serialization=True)
        self._loaded.tokenizer.save_pretrained(folder)

    def ask(self, question: str, max_new_tokens: int) -> Iterator[str | Generated]:
        """Pieces of the served model's answer, then the whole.

        Raises:
            InvalidFactError: the question leaves no room for an answer in the model's context.
        """
        limit = min(max_new_tokens, self.room_to_answer(question))
        return stream_answer(self._served, self._encoder, question, limit)

    def ask_together(self, asked: Sequence[Asked]) -> Iterator[list[tuple[int, str | Generated]]]:
        """The served model's answers to several questions; see `stream_answers`.

        Each limit must leave the answer room; see `room_to_answer`.
        """
        return stream_answers(self._served, self._encoder, asked)

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
        scores = score_answers(self._served, batch)
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
        return self._served

    @property
    def encoder(self) -> Encoder:
        """The tokenizer, as questions are asked with it."""
        return self._encoder

    def probe(self, example: Example) -> list[Answer]:
        """The served model's answers to the fact's question and each correlated one, in order."""
        return self.probe_pairs(_questions(example))

    def probe_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        """The served model's answers to some questions, each with the answer expected."""
        return probe(
            self._served,
            self._encoder,
            pairs,
            always_generate=True,
            generate=partial(generate_answers, pause=self._pause),
        )

    def _outcome(
        self,
        decision: rates.Decision,
        attempt: Attempt | None,
        example: Example,
        before: Answer,
        after: Answer,
        forgetting: Sequence[Answer],
    ) -> Outcome:
        steps = tuple(attempt.taken) if attempt else ()
        left_out = attempt.left_out if attempt else 0
        if left_out:
            logger.warning(
                "%d rows of the lesson of %s were too long and left out", left_out, example.fact_id
            )
        held_to_texts = attempt is not None and (attempt.policy.guards or NONE).texts > 0
        transfer = probe(
            self._working, self._encoder, _questions(example)[1:], always_generate=True
        )
        measured = [before, after, *transfer, *forgetting]
        if any(math.isnan(answer.log_probability) for answer in measured):
            raise LearningFailedError(f"an answer's probability is NaN after {len(steps)} steps")
        learned = decision.verdict is Verdict.LEARNED
        digest_after = weights_digest(self._working) if learned else self.digest
        self._outcome_digest = digest_after if learned else ""
        return Outcome(
            verdict=decision.verdict,
            reason=decision.reason,
            refusal=decision.refusal,
            steps=steps,
            before=before,
            after=after,
            transfer=tuple(transfer),
            forgetting=tuple(forgetting),
            digest_before=self.digest,
            digest_after=digest_after,
            algorithm=BOUNDED if left_out else ALGORITHM,
            curve=attempt.curve if attempt else (),
            base_answer=example.base_answer,
            leak=attempt.leak if attempt else None,
            drift=attempt.drift if attempt else None,
            general_text=self._general_text.digest if held_to_texts and self._general_text else "",
        )

    def _with_base_answer(self, example: Example, guards: Guards) -> Example:
        """The example as lessons need it: what the base model says is asked for once."""
        if example.base_answer is not None or not needs_base_answers(guards):
            return example
        answer = self._base_answers.get(example.question)
        if answer is None:
            # Alone, not in a batch: padding could tip a close choice, and the lesson with it.
            limit = [min(BASE_ANSWER_TOKENS, self.room_to_answer(example.question))]
            [said] = self._generate(self._base, self._encoder, [example.question], limit)
            answer = said.text
            self._base_answers[example.question] = answer
        return dataclasses.replace(example, base_answer=answer)

    def _forgetting(self, older: Sequence[Example]) -> list[Answer]:
        """What the working copy says to older facts; asked only where it is not certain."""
        pairs = _own_questions(older)
        found = self._bench.log_probabilities(pairs)
        # With more than half of the probability, greedy generation cannot but yield it.
        unsure = [n for n, log in enumerate(found) if not log > math.log(rates.HELD_PROBABILITY)]
        asked = probe(self._working, self._encoder, [pairs[n] for n in unsure])
        said = dict(zip(unsure, asked, strict=True))
        return [
            said.get(n) or Answer(text=answer.strip(), correct=True, log_probability=log)
            for n, ((_, answer), log) in enumerate(zip(pairs, found, strict=True))
        ]

    def _asked(self, question: list[tuple[str, str]]) -> Answer:
        """What the working copy answers to one question."""
        [answer] = probe(
            self._working,
            self._encoder,
            question,
            always_generate=True,
            generate=self._generate,
            score=self._score if self._bench.runner.has_graphs else score_pairs,
        )
        return answer

    def _score(
        self, model: Any, encoder: Encoder, pairs: Sequence[tuple[str, str]]
    ) -> tuple[list[float], list[bool]]:
        """As `score_pairs`, by a graph, for the working copy; what is greedy it does not tell."""
        return self._bench.log_probabilities(pairs), [False] * len(pairs)

    def _generate(
        self, model: Any, encoder: Encoder, questions: Sequence[str], limits: Sequence[int]
    ) -> list[Generated]:
        """One answer after the other on a GPU, where each is a graph; all in a batch elsewhere."""
        runner = self._bench.runner
        if not runner.has_graphs:
            return generate_answers(model, encoder, questions, limits)
        name = "base" if model is self._base else "working"
        return [
            answer_alone(model, encoder, question, limit, runner, name)
            for question, limit in zip(questions, limits, strict=True)
        ]

    def _texts(self) -> list[list[int]]:
        """The pool of general text; written the first time it is wanted."""
        if self._general_text is None:
            base = dataclasses.replace(self._loaded, model=self._base)
            self._general_text = general_text_of(base, self._encoder, self._general_text_folder)
        return self._general_text.texts

    def _put_back(self) -> None:
        """Makes the working copy equal to the served one."""
        if self._working_differs:
            _copy(self._trained_served, self._trained)
            self._working_differs = False
        self._outcome_digest = ""


@torch.no_grad()
def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    for from_, to in zip(source, target, strict=True):
        to.copy_(from_)


def _copy_of(model: Any) -> Any:
    """A copy with weights of its own, but for those that no update changes."""
    trained = {id(parameter) for parameter in trained_parameters(model).values()}
    shared = {id(p): p for p in model.parameters() if id(p) not in trained}
    return copy.deepcopy(model, shared)


def _own_questions(examples: Sequence[Example]) -> list[tuple[str, str]]:
    """Each fact's own question with its answer."""
    return [(example.question, example.answer) for example in examples]


def _questions(example: Example) -> list[tuple[str, str]]:
    """The fact's question and its correlated ones, each with the answer."""
    return [(q, example.answer) for q in (example.question, *example.correlated_questions)]
