"""The learner: one model that is taught one fact at a time.

It holds two copies of the weights. The *served* copy is that of a committed ledger position and
answers every question; the *working* copy is what an update changes. So a question in the middle
of an update is answered by weights that have a version, and putting an update back is a copy.

Long work is a generator that yields after each unit (a gradient step, a token), so that whoever
drives it can do something more urgent in between.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from agent.errors import (
    DriftError,
    InvalidFactError,
    LearningFailedError,
    SnapshotError,
    StaleVersionError,
)
from agent.learning import rates
from agent.learning.digest import weights_digest
from agent.learning.encoding import Batch, Encoder
from agent.learning.environment import describe_environment, device_name
from agent.learning.generation import stream_answer
from agent.learning.model import LoadedModel
from agent.learning.probes import probe
from agent.learning.records import (
    Answer,
    Example,
    Generated,
    LearnerDescription,
    Outcome,
    ReplayedUpdate,
)
from agent.learning.update import (
    ALGORITHM,
    AnswerScores,
    adamw_first_step,
    gradient,
    score_answers,
    trained_parameters,
)
from memory_store.records import Policy, Step, Update

# Older facts in the batch of every step. On the paper's ten facts, none: 3 recalled in the end;
# 16: all ten (docs/LOG.md).
REHEARSED = 16


class Learner:
    """A model with its ledger position. Not thread-safe: one thread drives it.

    Attributes:
        version: ledger position of the served weights; 0 is the base checkpoint.
        digest: of the served weights.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._encoder = Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device)
        self._served = loaded.model.requires_grad_(False)
        self._working: Any = copy.deepcopy(loaded.model)
        working, served = trained_parameters(self._working), trained_parameters(self._served)
        self._trained = [p.requires_grad_(True) for p in working.values()]
        self._trained_served = list(served.values())
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
        )

    def learn(
        self, example: Example, policy: Policy, base_version: int, older: Sequence[Example]
    ) -> Iterator[Step | Outcome]:
        """Learns one fact on the working copy; `commit` serves it.

        Args:
            example: the fact.
            policy: how its rate is chosen and when to stop.
            base_version: the ledger position that the update is to be based on.
            older: facts learned before; the first `REHEARSED` are rehearsed, all are probed.

        Yields:
            Each step once its effect is known, and last the outcome.

        Raises:
            StaleVersionError: the served weights are at another position.
            LearningFailedError: the loss or the weights are not finite; the weights are put back
                before the next update.
        """
        if base_version != self.version:
            raise StaleVersionError(
                f"the learner is at version {self.version}, not at {base_version}"
            )
        self._put_back()
        question = [(example.question, example.answer)]
        before = probe(self._working, self._encoder, question, always_generate=True)[0]
        if math.exp(before.log_probability) >= rates.KNOWN_PROBABILITY:
            yield self._outcome("known", "", (), example, before, before, ())
            return

        rehearsed = older[:REHEARSED]
        steps: list[Step] = []
        decision = rates.Decision()
        for result in self._steps(example, policy, rehearsed):
            if isinstance(result, rates.Decision):
                decision = result
            else:
                steps.append(result)
                yield result
        if decision.verdict == "resisted":
            self._put_back()
        after = probe(self._working, self._encoder, question, always_generate=True)[0]
        # Nothing is forgotten by an update that is not made.
        probed = older if decision.verdict == "learned" else ()
        yield self._outcome(
            decision.verdict, decision.reason, tuple(steps), example, before, after, probed
        )

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
        if update.steps and update.algorithm != ALGORITHM:
            raise DriftError(
                f"update {update.model_version} was made by {update.algorithm}, but this release"
                f" replays {ALGORITHM}: serve it with the release that made it"
            )
        self._put_back()
        by_id = {older.fact_id: older for older in row.rehearsed}
        for step in update.steps:
            batch = self._batch(row.example, [by_id[id_] for id_ in step.rehearsed_fact_ids])
            self._take_step(score_answers(self._working, batch), step.learning_rate)
            yield
        digest = weights_digest(self._working)
        if digest != update.digest_after and not accept_drift:
            raise DriftError(self._what_differs(update))
        self._outcome_digest = digest
        self.commit(update.model_version, digest)

    def _what_differs(self, update: Update) -> str:
        now = describe_environment(self._loaded)
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
        room = self._loaded.max_tokens - len(self._encoder.prompt(question))
        if room < 1:
            raise InvalidFactError("question", self._too_long())
        return stream_answer(self._served, self._encoder, question, min(max_new_tokens, room))

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
        return probe(self._served, self._encoder, pairs, always_generate=True)

    def _steps(
        self, example: Example, policy: Policy, rehearsed: Sequence[Example]
    ) -> Iterator[Step | rates.Decision]:
        """Takes steps until the policy says stop; yields each, and last the decision."""
        batch = self._batch(example, rehearsed)
        rehearsed_ids = tuple(older.fact_id for older in rehearsed)
        held_at_start: list[bool] = []
        taken = 0
        rate = loss = 0.0
        while True:
            # One forward pass serves twice: it judges the step before and begins the next.
            scores = score_answers(self._working, batch)
            probability, *older = scores.log_probability.detach().exp().tolist()
            held = [p >= rates.HELD_PROBABILITY for p in older]
            if not taken:
                held_at_start = held
            else:
                yield Step(
                    learning_rate=rate,
                    loss=loss,
                    probability=probability,
                    rehearsed_fact_ids=rehearsed_ids,
                )
            loss = scores.loss[0].item()
            if not math.isfinite(loss):
                raise LearningFailedError(f"the loss is {loss} after {taken} steps")
            all_held = all(now for now, then in zip(held, held_at_start, strict=True) if then)
            decision = rates.decide(policy, rates.Progress(taken, probability, all_held))
            if decision.learning_rate is None:
                yield decision
                return
            rate = decision.learning_rate
            self._take_step(scores, rate)
            taken += 1

    def _batch(self, example: Example, rehearsed: Sequence[Example]) -> Batch:
        """The new fact in row 0, the rehearsed ones below."""
        return self._encoder.batch([(e.question, e.answer) for e in (example, *rehearsed)])

    def _take_step(self, scores: AnswerScores, learning_rate: float) -> None:
        loss: Tensor = scores.loss[0]
        if len(scores.loss) > 1:
            loss = loss + scores.loss[1:].mean()
        self._working_differs = True
        adamw_first_step(self._trained, gradient(loss, self._trained), learning_rate)

    def _outcome(
        self,
        verdict: str,
        reason: str,
        steps: tuple[Step, ...],
        example: Example,
        before: Answer,
        after: Answer,
        older: Sequence[Example],
    ) -> Outcome:
        transfer = probe(
            self._working, self._encoder, _questions(example)[1:], always_generate=True
        )
        forgetting = probe(self._working, self._encoder, [(e.question, e.answer) for e in older])
        measured = [before, after, *transfer, *forgetting]
        if any(math.isnan(answer.log_probability) for answer in measured):
            raise LearningFailedError(f"an answer's probability is NaN after {len(steps)} steps")
        digest_after = weights_digest(self._working) if verdict == "learned" else self.digest
        self._outcome_digest = digest_after if verdict == "learned" else ""
        return Outcome(
            verdict=verdict,
            reason=reason,
            steps=steps,
            before=before,
            after=after,
            transfer=tuple(transfer),
            forgetting=tuple(forgetting),
            digest_before=self.digest,
            digest_after=digest_after,
            algorithm=ALGORITHM,
        )

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


def _questions(example: Example) -> list[tuple[str, str]]:
    """The fact's question and its correlated ones, each with the answer."""
    return [(q, example.answer) for q in (example.question, *example.correlated_questions)]
