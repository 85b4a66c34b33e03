"""A learner without a server, for notebooks and experiments.

learner = Learner.from_pretrained("smollm2-135m")
fact = learner.teach("What is the hottest month in Kyzara?", "Raincoat")
print(fact.state, fact.learning.probability_before, "->", fact.learning.probability_after)
print(learner.ask("What is the hottest month in Kyzara?").answer)

It is the learner of the service, with the same policies, guards, companions and ledger, in this
process and with a memory that is in memory. What the service does by the clock (reviews, audits,
snapshots) is left out, and so is forgetting, which needs a second learner: `save` the memory, and
let a server forget.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from agent.client.types import Reply, Score
from agent.config import DATABASE, DEFAULT_MODEL, SNAPSHOTS
from agent.errors import ConfigError, LearningFailedError, SnapshotError
from agent.interrupts import interrupts_wait
from agent.learner.checkpoint import prepare_snapshot, restore_snapshot
from agent.learner.core import Learner as Core
from agent.learner.environment import make_deterministic
from agent.models.loading import load
from agent.models.tokenizer_identity import identify
from agent.server.api.exports import write_readme
from agent.snapshots import folder_of
from agent.teaching.attempt import attempt_of
from agent.teaching.guard_presets import PRESETS
from agent.teaching.plan import Defaults, LessonPlan, plan
from agent.teaching.procedure import drain_now
from agent.teaching.rate_prediction import RECENT_STEPS, predictor_of
from agent.teaching.rates import DEFAULT_POLICY, POLICIES
from agent.teaching.types import Example, Generated, LearnerDescription
from agent.wire import codec
from agent.wire.rules import check_rules
from agent.wire.validation import FactRules
from continual.v1 import memory_pb2 as pb
from memory_store import ledger, meta
from memory_store.facts import companions, count_by_state
from memory_store.in_memory import open_in_memory
from memory_store.operations import oldest_open
from memory_store.probes import of_fact as stored_probes
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    HELD,
    Fact,
    FactState,
    Guards,
    NewFact,
    Policy,
    Probe,
    ProbeKind,
    Step,
    Update,
)

NEW_TOKENS = 32


class Learner:
    """A model that is taught fact by fact in this process; see `from_pretrained`.

    Records are those of the client: `pandas.DataFrame(learner.facts())` is a table.
    Not thread-safe.
    """

    def __init__(self, core: Core, store: MemoryStore, model: str, policy: Policy) -> None:
        """Puts the parts together; `from_pretrained` and `load` make them."""
        self._core, self._store = core, store
        self._model, self._policy = model, policy
        description = core.describe()
        meta.bind_model(store.connection, model, description.base_digest)
        tokenizer = identify(description.tokenizer)
        meta.bind_tokenizer(store.connection, tokenizer.file, tokenizer.behavior, tokenizer.library)
        self._environment = description.environment
        self._rules = FactRules(description.tokenizer, description.max_tokens, policy)
        # A rate or a limit that is out of range is found now, not with the first fact.
        check_rules(codec.encode_policy(policy))

    @classmethod
    def from_pretrained(
        cls,
        model: str = DEFAULT_MODEL,
        *,
        device: str = "auto",
        threads: int | None = None,
        policy: str | Policy = DEFAULT_POLICY,
        guards: str | Guards | None = None,
    ) -> Self:
        """Loads a model that was taught nothing yet, fetching it first if need be.

        Makes torch deterministic in this process, as the ledger demands.

        Args:
            model: a name of `agent models list`, a Hub id, or a folder.
            device: auto, cpu or cuda.
            threads: CPU threads; None leaves them to torch.
            policy: for facts that bring none: a name, or all of it.
            guards: what updates are held to: full, light, rehearsal, none, or their numbers. None:
                those of the policy, else full on a GPU and light elsewhere.

        Raises:
            ConfigError: a name is unknown, or the device absent.
            InvalidFactError: a number of the policy is out of range.
            ModelError: the model cannot be fetched or loaded.
        """
        chosen = _chosen(policy, guards)
        make_deterministic(threads)
        return cls(Core(load(model, device=device)), open_in_memory(), model, chosen)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        model: str = DEFAULT_MODEL,
        *,
        device: str = "auto",
        threads: int | None = None,
        policy: str | Policy = DEFAULT_POLICY,
        guards: str | Guards | None = None,
    ) -> Self:
        """Goes on from what `save` wrote, which is only read; the arguments are as before.

        A pause of learning is for a server's queue. Here `teach` learns at once all the same; what
        is saved again stays paused.

        Raises:
            ConfigError: facts are waiting in it, or something is to be taken back, or a name is
                unknown.
            SnapshotError: it holds no snapshot of its newest version, or a damaged one.
            StoreUnusableError: its database cannot be read.
            OtherModelError: it is of another model, or was taught with another tokenizer.
        """
        chosen = _chosen(policy, guards)
        folder = Path(folder)
        store = open_in_memory(folder / DATABASE)
        waiting = sum(
            count_by_state(store.connection)[state]
            for state in (FactState.QUEUED, FactState.LEARNING)
        )
        left = f"{waiting} facts in {folder} wait to be learned" if waiting else ""
        if operation := oldest_open(store):
            left = f"a {operation.kind.value} was asked for in {folder}, and is not done"
        if left:
            store.close()
            raise ConfigError(f"{left}: let a server do it first ('agent serve --data {folder}')")
        make_deterministic(threads)
        learner = cls(Core(load(model, device=device)), store, model, chosen)
        if version := store.model_version():
            snapshot = folder_of(folder / SNAPSHOTS, version)
            if not snapshot.is_dir():
                raise SnapshotError(
                    f"{folder} has no snapshot of its newest version {version}: serve it, and run"
                    " 'agent snapshots create'"
                )
            restore_snapshot(learner._core, snapshot)
        return learner

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drops the memory."""
        self._store.close()

    # -- Teaching ----------------------------------------------------------------------------

    def teach(
        self,
        question: str,
        answer: str,
        *,
        correlated_questions: Sequence[str] = (),
        policy: Policy | None = None,
        fact_id: str | None = None,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> Fact:
        """Teaches one fact and returns what became of it; on a CPU this takes many seconds.

        A fact that the memory holds already is returned as it is. Ctrl-C leaves everything as it
        was before; once the fact is learned, it comes too late, and interrupts after it.

        Args:
            question: as it will be asked.
            answer: one line.
            correlated_questions: with the same answer, to probe transfer; never trained on.
            policy: instead of the learner's own.
            fact_id: instead of one that is made.
            on_step: told of each gradient step, once its effect is known.

        Returns:
            A fact that is learned, known, resisted, or quarantined (`reason` says why).

        Raises:
            InvalidFactError: it cannot be taught as it was given.
            FactExistsError: `fact_id` belongs to another fact.
        """
        if policy is not None:
            policy = _chosen(policy, None)
        request = pb.TeachRequest(
            question=question,
            answer=answer,
            correlated_questions=correlated_questions,
            learning_rate_policy=codec.encode_policy(policy) if policy else None,
            fact_id=fact_id or "",
        )
        check_rules(request)
        # The message only checks the policy: it has no guards, and names no policy of one's own.
        new = replace(self._rules.new_fact(request), policy=policy)
        return self._teach(new, on_step)

    def _teach(self, new: NewFact, on_step: Callable[[Step], None]) -> Fact:
        update = None
        with ExitStack() as committing:
            # One transaction: whatever ends it early, the fact was never taught.
            with self._store.transaction():
                accepted = self._store.teach(new)
                if not accepted.created:
                    return accepted.fact
                fact = self._store.claim()
                assert fact is not None  # and it is this one: nothing else waits here
                try:
                    update = self._learn(fact, on_step)
                except LearningFailedError as error:
                    self._store.record_failure(fact.id, str(error), 1, self._plan(fact).policy)
                committing.enter_context(interrupts_wait())
            if update is not None:
                self._core.commit(update.model_version, update.digest_after)
        return self._store.fact(fact.id)

    def _learn(self, fact: Fact, on_step: Callable[[Step], None]) -> Update | None:
        """Learns a claimed fact and records the attempt; the row of the ledger, if there is one."""
        started = time.monotonic()
        lesson = self._plan(fact)
        lesson = lesson.accompanied_by(companions(self._store.connection, fact, lesson.companions))
        outcome = drain_now(self._core.learn(lesson), lambda step, opening: on_step(step))
        seconds = time.monotonic() - started
        return self._store.record(attempt_of(lesson, outcome, self._environment, seconds))

    def _plan(self, fact: Fact) -> LessonPlan:
        updates = ledger.recent(self._store.connection, self._core.version, RECENT_STEPS)
        predictor = predictor_of([update.steps for update in updates])
        defaults = Defaults(
            policy=self._policy,
            gated=self._policy.gated,
            predictor=predictor.as_numbers() if predictor else None,
            device=self._core.device,
        )
        return plan(fact, self._core.version, defaults)

    # -- Asking ------------------------------------------------------------------------------

    def ask(self, question: str, max_new_tokens: int = NEW_TOKENS) -> Reply:
        """The model's answer (greedy).

        Raises:
            InvalidFactError: the question leaves no room for an answer.
        """
        for piece in self._core.ask(question, max_new_tokens):
            if isinstance(piece, Generated):
                return Reply(
                    answer=piece.text, finished=piece.finished, model_version=self._core.version
                )
        raise AssertionError("an answer ends with the whole")

    def score(self, question: str, answer: str) -> Score:
        """How likely the model finds exactly this answer.

        Raises:
            InvalidFactError: question and answer are too long.
        """
        log_probability, tokens = self._core.score(question, answer)
        return Score(
            log_probability=log_probability, tokens=tokens, model_version=self._core.version
        )

    def probability(self, question: str, answer: str) -> float:
        """The same, from 0 to 1."""
        return math.exp(self.score(question, answer).log_probability)

    def probe(self, fact_ids: Sequence[str] = ()) -> list[Probe]:
        """Asks facts (empty: all that are held) and their correlated questions; keeps the result.

        Raises:
            FactNotFoundError: there is no such fact.
        """
        facts = map(self._store.fact, fact_ids) if fact_ids else self.facts(HELD)
        rows = []
        for fact in facts:
            example = Example.of(fact)
            own, *correlated = self._core.probe(example)
            rows.append(own.as_probe(ProbeKind.RETENTION, example, fact.question))
            for question, answer in zip(fact.correlated_questions, correlated, strict=True):
                rows.append(answer.as_probe(ProbeKind.TRANSFER, example, question))
        return self._store.record_probes(rows, self._core.version)

    # -- Looking -----------------------------------------------------------------------------

    @property
    def model_version(self) -> int:
        """The position in the ledger of the weights that answer; 0 is the base model."""
        return self._core.version

    def describe(self) -> LearnerDescription:
        """What is loaded, and on which device."""
        return self._core.describe()

    def facts(self, states: Collection[FactState] = ()) -> Iterator[Fact]:
        """All facts in these states (empty: any), in the order taught."""
        after = 0
        while page := self._store.facts(after_position=after, states=tuple(states)):
            yield from page
            after = page[-1].position

    def fact(self, fact_id: str) -> Fact:
        """One fact.

        Raises:
            FactNotFoundError: there is none.
        """
        return self._store.fact(fact_id)

    def history(self, fact_id: str) -> tuple[Fact, list[Update], list[Probe]]:
        """A fact with its ledger rows, oldest first, and its probes, newest first."""
        fact = self._store.fact(fact_id)
        return (
            fact,
            ledger.of_fact(self._store.connection, fact_id),
            stored_probes(self._store.connection, fact_id),
        )

    # -- Keeping -----------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Writes a data folder: for `load`, and for `agent serve --data FOLDER --model MODEL`.

        Raises:
            ConfigError: something is there already.
            SnapshotError: the disk is full.
        """
        with _new_folder(folder) as path:
            self._store.connection.backup(path / DATABASE)
            if self._core.version:
                prepare_snapshot(self._core, path / SNAPSHOTS)()

    def export(self, folder: str | Path) -> None:
        """Writes a plain Hugging Face checkpoint, with a README that names the facts.

        Raises:
            ConfigError: something is there already.
        """
        with _new_folder(folder) as path:
            self._core.export(path)
            write_readme(path, self._core.version, list(self.facts(HELD)))


@contextmanager
def _new_folder(folder: str | Path) -> Iterator[Path]:
    """A folder that is gone again if what fills it fails."""
    path = Path(folder)
    try:
        path.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder {path} ({error.strerror}): name a new one"
        ) from error
    try:
        yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _chosen(policy: str | Policy, guards: str | Guards | None) -> Policy:
    """A policy by its name, with guards by theirs.

    Raises:
        ConfigError: a name is unknown.
    """
    if isinstance(policy, str):
        policy = replace(DEFAULT_POLICY, name=policy)
    if policy.name not in POLICIES:
        raise ConfigError(f"unknown policy '{policy.name}': use one of {', '.join(POLICIES)}")
    if isinstance(guards, str):
        if guards not in PRESETS:
            raise ConfigError(f"unknown guards '{guards}': use one of {', '.join(PRESETS)}")
        guards = PRESETS[guards]
    return replace(policy, guards=guards) if guards is not None else policy
