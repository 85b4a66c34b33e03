"""The recorded histories. Each is lived from an empty folder, and looked at after each step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import LearningFailedError
from agent.learner.core import Learner as Core
from agent.local import Learner
from agent.models.loading import load
from agent.teaching.guard_presets import LIGHT, NONE, REHEARSAL
from agent.teaching.rate_prediction import RatePredictor
from agent.teaching.types import Example
from eval.teachers import review_schedule
from eval.teachers.ours import LearnerTeacher
from memory_store.vocabulary import Guards, NewFact, Policy
from tests.golden.recorder import Recorder, short_hash
from tests.undo.in_process import POLICY, Deaths
from tests.undo.memory import FACTS, running_memory
from tests.undo.test_taking_back import everything_known, other_hardware

History = Callable[[Recorder, Path], Awaitable[None]]

SEARCH = Policy(name="search", learning_rate=3e-3, max_steps=60, guards=REHEARSAL)
PREDICTED = replace(SEARCH, name="predicted")
FIXED = Policy(name="fixed", learning_rate=1e-3, max_steps=3)
PAPER = Policy(name="paper", learning_rate=1e-3, max_steps=4)
CARELESS = replace(POLICY, guards=NONE)
EVERY_GUARD = Guards(candidates=4, rehearsed=2, neighbours=4, controls=2, texts=2)
# Looks for a rate of 2e-3 first, whatever the fact.
PREDICTOR = RatePredictor(intercept=-2.7, coefficients=(0.0,) * 4, spread=0.1, rows=30).as_numbers()


def new(of: str, policy: Policy | None = None, **other: Any) -> NewFact:
    """A fact of `FACTS`; some of its fields may differ."""
    question, answer = FACTS[of]
    fields = {"question": question, "answer": answer, "fact_id": of, "policy": policy}
    return NewFact(**fields | other)


async def policies(recorder: Recorder, folder: Path) -> None:
    """A fact by every policy, with and without guards; a restart replays all of it."""
    async with running_memory(folder) as memory:
        await memory.teach_new(new("fact-a", correlated_questions=("Kyzara is hot in?", "Month?")))
        await recorder.memory("taught by the policy of the server, with other forms", memory)
        await memory.teach_new(new("fact-b", SEARCH))
        await recorder.memory("taught by search", memory)
        await memory.teach_new(new("fact-c", PREDICTED))
        await recorder.memory("taught by predicted, which knows nothing yet", memory)
        memory.loop.predict_by(PREDICTOR, memory.learner.version)
        await memory.teach_new(new("fact-d", PREDICTED))
        await recorder.memory("taught by predicted", memory)
        await memory.teach_new(new("fact-e", PAPER))
        await recorder.memory("taught as in the paper", memory)
        await memory.teach_new(new("fact-a", FIXED, answer="Umbrella", fact_id="fact-a2"))
        await recorder.memory("a newer answer, by fixed with the guards of the device", memory)
        with everything_known():
            await memory.teach_new(new("fact-b", question="Blipland?", fact_id="known"))
        await recorder.memory("known already", memory)
        await memory.teach_in_steps("hard", "Why?", "Violin", max_steps=1)
        await recorder.memory("resisted", memory)
        await memory.store.read(
            lambda store: recorder.findings("what was found", memory.learner, store)
        )
    async with running_memory(folder) as memory:
        await recorder.memory("restarted: replayed", memory)


async def guarded(recorder: Recorder, folder: Path) -> None:
    """Every guard at once, on a server whose updates must all pass the gate."""
    policy = replace(POLICY, guards=LIGHT)
    async with running_memory(folder, policy=policy, gated=True) as memory:
        await memory.teach_new(new("fact-a"), new("fact-c"))
        await recorder.memory("taught two at once", memory)
        await memory.teach_new(new("fact-d", PAPER))
        await recorder.memory("taught as in the paper, through the gate", memory)
        await memory.teach_new(new("fact-e", replace(FIXED, learning_rate=3e-2, guards=NONE)))
        await recorder.memory("refused by the gate", memory)
        await memory.teach_new(new("fact-b", replace(SEARCH, guards=EVERY_GUARD, max_steps=20)))
        await recorder.memory("resisted search, and a gentler attempt", memory)
        await memory.store.read(
            lambda store: recorder.findings("what was found", memory.learner, store)
        )
        await memory.keeper.create()
        await memory.teach_new(new("fact-e", fact_id="again"))
        await recorder.memory("taught after a snapshot", memory)
    async with running_memory(folder, policy=policy, gated=True) as memory:
        await recorder.memory("restarted: restored and replayed", memory)


async def reviewed(recorder: Recorder, folder: Path) -> None:
    """Reviews that hold and that teach again; then facts are forgotten, with snapshots."""
    async with running_memory(folder, every_updates=2) as memory:
        for fact_id, policy in (("fact-a", None), ("fact-b", None), ("fact-c", CARELESS)):
            await memory.teach_new(new(fact_id, policy))
            await recorder.memory(f"taught {fact_id}", memory)
            await memory.review(fact_id)
            await recorder.memory(f"reviewed {fact_id}", memory)
        await memory.review("fact-a")
        await recorder.memory("reviewed fact-a again", memory)
        await memory.teach_new(new("fact-d"), new("fact-e", CARELESS))
        await memory.review("fact-d")
        await recorder.memory("taught two more, reviewed fact-d", memory)
        await recorder.memory("forgot fact-c", memory, await memory.forget("fact-c"))
        await memory.review("fact-b")
        await recorder.memory("reviewed fact-b on the new line", memory)
        await recorder.memory("forgot fact-a too", memory, await memory.forget("fact-a"))
        await memory.teach_new(new("fact-a", fact_id="fact-a2"))
        await recorder.memory("taught fact-a anew", memory)
        await memory.store.read(
            lambda store: recorder.findings("what was found", memory.learner, store)
        )
    async with running_memory(folder) as memory:
        await recorder.memory("restarted: restored and replayed", memory)


async def undone(recorder: Recorder, folder: Path) -> None:
    """Forget without a snapshot, roll back, and roll back the rollback."""
    async with running_memory(folder) as memory:
        await memory.teach("fact-a", "fact-b", "fact-c", newer=("Sky?", "Violin"))
        await memory.teach("fact-d")
        await recorder.memory("taught", memory)
        await recorder.memory("forgot fact-b", memory, await memory.forget("fact-b"))
        await recorder.memory("forgot the newer answer", memory, await memory.forget("newer"))
        head = memory.learner.version
        await memory.teach("fact-e")
        await recorder.memory("taught fact-e", memory)
        newest = memory.learner.version
        await recorder.memory("rolled back", memory, await memory.roll_back(head))
        await recorder.memory("and forth", memory, await memory.roll_back(newest))
    async with running_memory(folder) as memory:
        await recorder.memory("restarted: replayed", memory)


async def erased(recorder: Recorder, folder: Path) -> None:
    """A fact is erased, and the start after it replays none of the rows that had its text."""
    async with running_memory(folder) as memory:
        await memory.teach("fact-a", "fact-b", "fact-c")
        await memory.keeper.create()
        await memory.teach("fact-d")
        await recorder.memory("taught", memory)
        await recorder.memory("erased", memory, await memory.forget("fact-b", erase=True))
    async with running_memory(folder) as memory:
        await recorder.memory("restarted", memory)
        await memory.teach("fact-e")
        await recorder.memory("taught fact-e", memory)


async def failing(recorder: Recorder, folder: Path) -> None:
    """A learner that dies, and a fact that cannot be learned: quarantined, then tried again."""
    deaths = Deaths(2, 4)
    async with running_memory(folder, deaths=deaths) as memory:
        await memory.teach("fact-a", "fact-b")
        await recorder.memory("taught, in spite of two deaths", memory)
        deaths.poison["fact-c"] = LearningFailedError("the loss is nan")
        await memory.teach("fact-c", "fact-d")
        await recorder.memory("quarantined", memory)
        deaths.poison.clear()
        forgotten = await memory.forget("fact-a")
        await recorder.memory("tried again without fact-a", memory, forgotten)


async def drifted(recorder: Recorder, folder: Path) -> None:
    """The same rows come out different, which the operator accepts; then a fact is forgotten."""
    async with running_memory(folder) as memory:
        await memory.teach("fact-a", "fact-b", "fact-c")
        await recorder.memory("taught", memory)
    with other_hardware():
        async with running_memory(folder, accept_drift=True) as memory:
            await recorder.memory("accepted", memory)
            await memory.teach("fact-d")
            await recorder.memory("taught after it", memory)
            await recorder.memory("forgot", memory, await memory.forget("fact-b"))
        async with running_memory(folder) as memory:
            await recorder.memory("restarted: replayed", memory)


async def notebook(recorder: Recorder, folder: Path) -> None:
    """The learner without a server, which is saved and loaded."""

    def now(step: str, learner: Learner) -> None:
        recorder.store(step, learner._core, learner._store, outline={}, bits={})

    def teach(learner: Learner, of: str, **other: Any) -> None:
        question, answer = FACTS[of]
        fields = {"question": question, "answer": answer, "fact_id": of}
        learner.teach(**fields | other)

    with Learner.from_pretrained("tiny", device="cpu", threads=1, policy=POLICY) as learner:
        teach(learner, "fact-a", correlated_questions=["Month?"])
        teach(learner, "fact-b", policy=replace(SEARCH, guards=None))
        now("taught, by the guards of the learner", learner)
        teach(learner, "fact-c", policy=replace(PAPER, max_steps=2))
        teach(learner, "fact-d", policy=replace(PREDICTED, guards=LIGHT))
        now("taught by paper and predicted", learner)
        teach(learner, "fact-a", answer="Umbrella", fact_id="fact-a2")
        teach(learner, "fact-e", policy=replace(POLICY, max_steps=1, guards=REHEARSAL))
        now("a newer answer, and one that resists", learner)
        learner.probe()
        learner.save(folder)
        recorder.findings("what was found", learner._core, learner._store)
    with Learner.load(folder, "tiny", device="cpu", threads=1, guards="rehearsal") as learner:
        teach(learner, "fact-e", policy=replace(CARELESS, guards=None), fact_id="fact-e2")
        now("loaded, taught one more", learner)


async def teacher(recorder: Recorder, folder: Path) -> None:
    """The suites' way to teach, with reviews after each fact; saved and loaded in between."""
    facts = [Example(fact_id=id_, question=q, answer=a) for id_, (q, a) in FACTS.items()]
    newer = Example(fact_id="newer", question=FACTS["fact-c"][0], answer="Violin")

    def teach(ours: LearnerTeacher, learner: Core, *examples: Example) -> None:
        for taught in ours.teach(examples):
            recorder.add(
                f"taught {taught.fact_id}",
                learner,
                outline={"verdict": str(taught.verdict), "retaught": list(taught.retaught)},
                bits={
                    "rates": short_hash(list(taught.learning_rates)),
                    "candidates": taught.candidates,
                    "answer": [taught.answer.text, taught.answer.log_probability],
                },
            )

    with pytest.MonkeyPatch.context() as patch:
        # A review is due one update after its fact was taught.
        patch.setattr(review_schedule, "interval", lambda times_held: (1 + times_held, None))
        for policy, taught in ((CARELESS, facts), (replace(PREDICTED, guards=None), facts[2:4])):
            first, second = (Core(load("tiny", device="cpu")) for _ in range(2))
            begun = LearnerTeacher(policy.name, first, policy)
            teach(begun, first, *taught[:-1], newer)
            (folder / policy.name).mkdir(parents=True)
            begun.save(folder / policy.name)
            again = LearnerTeacher(policy.name, second, policy)
            again.load(folder / policy.name)
            teach(again, second, taught[-1])


async def smollm2(recorder: Recorder, folder: Path) -> None:
    """A few facts on a real model: taught, reviewed, forgotten, and replayed."""
    guards = Guards(candidates=4, rehearsed=2, neighbours=2, controls=1)
    policy = Policy(name="until-known", learning_rate=1e-4, max_steps=12, guards=guards)

    def memory_of(folder: Path) -> Any:
        return running_memory(folder, policy=policy, model="smollm2-135m")

    async with memory_of(folder) as memory:
        await memory.teach("fact-a", "fact-b")
        await recorder.memory("taught", memory)
        await memory.review("fact-a")
        await recorder.memory("reviewed", memory)
        await recorder.memory("forgot", memory, await memory.forget("fact-a"))
    async with memory_of(folder) as memory:
        await recorder.memory("restarted: replayed", memory)


FAST: dict[str, History] = {
    history.__name__: history
    for history in (
        policies,
        guarded,
        reviewed,
        undone,
        erased,
        failing,
        drifted,
        notebook,
        teacher,
    )
}
SLOW: dict[str, History] = {smollm2.__name__: smollm2}
