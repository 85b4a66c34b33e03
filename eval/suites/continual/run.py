"""One teacher's run of the suite `continual`: facts are taught one by one and measured on the way.

Before the first fact, and after 10, 30, 100, 300, 1000 and all facts, the model is asked every fact
that it was taught so far, its paraphrases and correlated questions, which are never taught, and
control questions about names that no fact has. Its perplexity on general text is measured too.

Each result goes into a journal at once. An interrupted run continues from its last measurement if
the teacher can save what it has learned (`SavingTeacher`); other teachers are taught again from the
start. A fact that is taught again must give the same result, to the last bit of its probability.
Nothing is measured twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from agent.errors import AgentError
from agent.teaching.types import Answer, Example
from eval.fictional import FictionalFact, control_questions, fictional_facts
from eval.run_folder import Journal
from eval.suites.continual.general_texts import GeneralScores, GeneralTexts, measure_general
from eval.suites.continual.teacher_state import SavedTeacher
from eval.teachers.protocol import Taught, Teacher
from memory_store.vocabulary import Verdict

CHECKPOINTS = (10, 30, 100, 300, 1000)
# Questions in one call of a teacher; progress is reported between calls.
ASKED_AT_ONCE = 64


class NotRepeatableError(AgentError):
    """Teaching the same facts again gave other weights."""


# Called with what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is taught and asked.

    Attributes:
        facts: in the order of teaching.
        controls: questions that are never taught.
        general: texts for perplexity; None leaves that out.
        between: numbers of facts after which to measure, if more are taught.
    """

    facts: tuple[FictionalFact, ...]
    controls: tuple[str, ...]
    general: GeneralTexts | None = None
    between: tuple[int, ...] = CHECKPOINTS

    @classmethod
    def of(cls, facts: int, controls: int, seed: int, general: GeneralTexts | None = None) -> Self:
        """The first facts and control questions of a seed."""
        return cls(
            facts=tuple(fictional_facts(facts, seed)),
            controls=tuple(control_questions(controls, seed)),
            general=general,
        )

    def checkpoints(self, sees_all: bool) -> list[int]:
        """Numbers of facts after which to measure; 0 is the base model."""
        # A teacher that sees all facts at once has no state in between.
        between = () if sees_all else self.between
        return [0, *(n for n in between if n < len(self.facts)), len(self.facts)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The answers after some facts were taught.

    Attributes:
        taught: how many facts were taught before.
        retention: one answer for each of them, in order.
        paraphrase: two for each of them.
        transfer: one for each of them, to the correlated question.
        controls: the answer to each control question.
        general: perplexities; None if they were left out.
        seconds: wall time of the measurement.
    """

    taught: int
    retention: tuple[Answer, ...]
    paraphrase: tuple[Answer, ...]
    transfer: tuple[Answer, ...]
    controls: tuple[str, ...]
    general: GeneralScores | None
    seconds: float

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The inverse of `asdict`."""
        general = fields["general"]
        return cls(
            taught=fields["taught"],
            **{
                kind: tuple(Answer(**answer) for answer in fields[kind])
                for kind in ("retention", "paraphrase", "transfer")
            },
            controls=tuple(fields["controls"]),
            general=GeneralScores(**general) if general is not None else None,
            seconds=fields["seconds"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The results of one teacher's run so far.

    Attributes:
        sees_all: the teacher was given all facts at once.
        taught: one result for each fact, in order.
        measurements: in order, the base model's first.
    """

    sees_all: bool
    taught: tuple[Taught, ...]
    measurements: tuple[Measurement, ...]

    @classmethod
    def read(cls, journal: Journal) -> Self:
        """Reads a journal."""
        sees_all, taught, measurements = False, [], []
        for record in journal.records:
            if "sees_all" in record:
                sees_all = record["sees_all"]
            elif "fact_id" in record:
                read = {
                    "verdict": Verdict(record["verdict"]),
                    "learning_rates": tuple(record["learning_rates"]),
                    "answer": Answer(**record["answer"]),
                    "retaught": tuple(record["retaught"]),
                }
                taught.append(Taught(**{**record, **read}))
            else:
                measurements.append(Measurement.from_json(record))
        return cls(sees_all=sees_all, taught=tuple(taught), measurements=tuple(measurements))


def run_continual(
    make_teacher: Callable[[], Teacher],
    task: Task,
    journal: Journal,
    progress: Progress,
    states: Path | None = None,
) -> History:
    """Teaches all facts and measures on the way; continues where the journal ends.

    Args:
        make_teacher: returns a teacher at the base checkpoint; called only if work is left.
        task: what is taught and asked.
        journal: of an earlier run of the same task and teacher, or an empty one.
        progress: see `Progress`.
        states: folder for the teacher's state at the last measurement, removed at the end. None:
            an interrupted run teaches again from the start.

    Raises:
        NotRepeatableError: a fact that was taught again gave another result.
        LearnerError: the teacher failed.
        SnapshotError: the teacher's state is damaged.
    """
    stored = History.read(journal)
    if stored.measurements and stored.measurements[-1].taught == len(task.facts):
        return stored
    teacher = make_teacher()
    if not journal.records:
        journal.append({"sees_all": teacher.sees_all})
    measured = {measurement.taught for measurement in stored.measurements}
    saved = SavedTeacher(teacher, states)
    done = saved.restore()
    for checkpoint in task.checkpoints(teacher.sees_all):
        if checkpoint < done:
            continue
        for result in _teach(teacher, task, done, checkpoint, progress):
            if done < len(stored.taught):
                _require_same(stored.taught[done], result)
            else:
                journal.append(asdict(result))
            done += 1
        if checkpoint not in measured:
            journal.append(asdict(measure(teacher, task, checkpoint, progress)))
            saved.keep(checkpoint)
    saved.remove()
    return History.read(journal)


def measure(teacher: Teacher, task: Task, taught: int, progress: Progress) -> Measurement:
    """Asks everything about the first `taught` facts, the controls, and general text."""
    started = time.perf_counter()
    facts = task.facts[:taught]
    # Only its length matters: it limits what is generated for a control question. Every taught
    # answer fits, and the limit is the same before and after teaching.
    longest = max((fact.answer for fact in task.facts), key=len)
    questions = {
        "retention": [(fact.question, fact.answer) for fact in facts],
        "paraphrase": [(p, fact.answer) for fact in facts for p in fact.paraphrases],
        "transfer": [(fact.correlated, fact.answer) for fact in facts],
        "controls": [(question, longest) for question in task.controls],
    }
    name = f"{teacher.name}: measuring after {taught}"
    total = sum(map(len, questions.values())) + (len(task.general) if task.general else 0)
    answers: dict[str, tuple[Answer, ...]] = {}
    asked = 0
    progress(name, 0, total)
    for kind, pairs in questions.items():
        given: list[Answer] = []
        # No chunk mixes kinds, so that controls are in the same batches at every measurement.
        for start in range(0, len(pairs), ASKED_AT_ONCE):
            given += teacher.probe(pairs[start : start + ASKED_AT_ONCE])
            progress(name, asked + len(given), total)
        asked += len(given)
        answers[kind] = tuple(given)
    general = None
    if task.general is not None:
        general = measure_general(
            teacher.model, task.general, lambda done, _: progress(name, asked + done, total)
        )
    return Measurement(
        taught=taught,
        retention=answers["retention"],
        paraphrase=answers["paraphrase"],
        transfer=answers["transfer"],
        controls=tuple(answer.text for answer in answers["controls"]),
        general=general,
        seconds=time.perf_counter() - started,
    )


def _teach(
    teacher: Teacher, task: Task, start: int, end: int, progress: Progress
) -> Iterator[Taught]:
    """Teaches the facts from `start` up to `end`."""
    facts = task.facts[start:end]
    examples = [
        Example(fact_id=fact.id, question=fact.question, answer=fact.answer) for fact in facts
    ]
    name, total = f"{teacher.name}: teaching", len(task.facts)
    progress(name, start, total)
    results = teacher.teach(examples) if examples else ()
    for number, (fact, result) in enumerate(zip(facts, results, strict=True), start=start + 1):
        assert result.fact_id == fact.id, "results come in the order of the facts"
        yield result
        progress(name, number, total)


def _require_same(before: Taught, now: Taught) -> None:
    # By their text, where NaN is equal to NaN.
    if repr(replace(now, seconds=before.seconds)) != repr(before):
        raise NotRepeatableError(
            f"fact {now.fact_id}, taught again to continue from its weights, came out different:"
            f" {_described(before)} before, {_described(now)} now. The measurements are of other"
            " weights: start again in another folder"
        )


def _described(taught: Taught) -> str:
    answer = taught.answer
    return (
        f"{taught.verdict} in {len(taught.learning_rates)} steps, {answer.text!r}"
        f" (log-probability {answer.log_probability:.6f})"
    )
