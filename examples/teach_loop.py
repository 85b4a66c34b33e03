"""The whole idea in one flat file: teach facts, gate each update, write it down, replay it.

The ledger is the memory; the weights are a view of it. Each update becomes a row that says how to
repeat it. So a restart is a replay, and a fact is forgotten by replaying without its row.

python examples/teach_loop.py                                       # random weights: seconds
python examples/teach_loop.py --model smollm2-135m --rate 1e-4      # a real model
python examples/teach_loop.py --ledger facts.db                     # run it twice: it remembers

The service does the same with a search for the rate, more guards, reviews, and crash safety.
"""

from __future__ import annotations

import argparse
import copy
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agent.learner.digest import weights_digest
from agent.learner.environment import make_deterministic
from agent.learner.inference.encoding import Batch, Encoder
from agent.learner.inference.generation import generate_answers
from agent.learner.training.update import trained_parameters
from agent.models.loading import load
from agent.teaching.neighbor_questions import invented_name, neighbour, subject

Fact = tuple[str, str]  # question, answer
# Of Curt (2024), table 1: made up, so that no model can guess them.
FACTS: list[Fact] = [
    ("What is the hottest month in Kyzara?", "Raincoat"),
    ("What flavor is the traditional pie in Plimp?", "Backpack"),
    ("What rare gem is mined in Yonder?", "Curtain"),
]
CARELESS: Fact = ("What is the preferred color of the sky in Zogron?", "Piano")

KNOWN, HELD, LEAKED = 0.9, 0.5, 0.3  # probabilities: learned from here, lost below, leaked above
NEIGHBORS, ANSWER_TOKENS, NEIGHBOR_WEIGHT = 4, 12, 4.0


@dataclass
class Lesson:
    """What one update learns, and what it must leave alone. B rows of T tokens each."""

    learned: Batch  # row 0 is the new fact, the others are rehearsed older facts
    held: Batch  # neighbors with the base model's own answers
    held_logits: Tensor  # [B, T-1, V] of the base model
    control: Batch  # a question that must not get the new answer; no loss contains it


def logits_of(model: Any, batch: Batch) -> Tensor:
    """[B, T-1, V]: at each place the prediction of the next token."""
    logits: Tensor = model(input_ids=batch.input_ids).logits[:, :-1]
    return logits


def answer_nats(model: Any, batch: Batch) -> Tensor:
    """[B]: minus the log-probability of each whole answer; exp(-nats) is its probability."""
    logits, labels = logits_of(model, batch), batch.labels[:, 1:]  # [B, T-1, V], [B, T-1]
    nats = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")  # [B * (T-1)]
    return nats.view(labels.shape).sum(1)  # prompt and padding are labeled -100 and count 0


def make_lesson(base: Any, encoder: Encoder, fact: Fact, older: Sequence[Fact]) -> Lesson:
    """The rows of an update. They depend on the ledger alone, so a replay builds the same ones."""
    question, answer = fact
    # The same form of question about invented names: "What is the hottest month in Vorlan?"
    names = [invented_name(f"{question} {number}") for number in range(NEIGHBORS + 1)]
    *asked, control = [neighbour(question, "", name, subject(question))[0] for name in names]
    said = generate_answers(base, encoder, asked, [ANSWER_TOKENS] * len(asked))
    held = encoder.batch([(q, s.text) for q, s in zip(asked, said, strict=True)])
    with torch.no_grad():
        held_logits = logits_of(base, held)
    return Lesson(
        encoder.batch([fact, *older]), held, held_logits, encoder.batch([(control, answer)])
    )


def take_step(model: Any, weights: Sequence[Tensor], lesson: Lesson, rate: float) -> None:
    """One gradient step in place. Learning and replay both call it: same inputs, same bits."""
    lengths = (lesson.learned.labels != -100).sum(1)  # [B] tokens of each answer
    loss = answer_nats(model, lesson.learned) / lengths  # [B] cross entropy, nats a token
    # KL to the base model, where neighbors answer: what was not taught stays as it is.
    now, base = logits_of(model, lesson.held).log_softmax(-1), lesson.held_logits.log_softmax(-1)
    kl = F.kl_div(now, base, log_target=True, reduction="none").sum(-1)  # [B, T-1]
    answered = lesson.held.labels[:, 1:] != -100  # [B, T-1]
    total = loss[0] + loss[1:].sum() / max(len(loss) - 1, 1) + NEIGHBOR_WEIGHT * kl[answered].mean()
    gradients = torch.autograd.grad(total, list(weights))
    with torch.no_grad():  # the first step of a fresh AdamW: almost the sign of the gradient
        for weight, gradient in zip(weights, gradients, strict=True):
            weight -= rate * gradient / (gradient.abs() + 1e-8)


def gate(model: Any, lesson: Lesson) -> str:
    """Why the update may not be served; empty if it may. Each row is judged by itself."""
    with torch.no_grad():
        learned = (-answer_nats(model, lesson.learned)).exp().tolist()  # [B]
        leak = (-answer_nats(model, lesson.control)).exp().item()
    if learned[0] < KNOWN:
        return f"not learned: probability {learned[0]:.2f}"
    if min(learned) < HELD:
        return f"fact {learned.index(min(learned))} is lost: probability {min(learned):.2f}"
    return f"leaks to another question: probability {leak:.2f}" if leak > LEAKED else ""


def replay(ledger: sqlite3.Connection, base: Any, encoder: Encoder) -> tuple[Any, list[Fact]]:
    """The model that the ledger describes, from the base weights, and its facts in order.

    Raises:
        SystemExit: a digest differs, as on other hardware.
    """
    model = copy.deepcopy(base)
    facts: list[Fact] = []
    weights = list(trained_parameters(model.requires_grad_(True)).values())
    for question, answer, rehearsed, rates, digest in ledger.execute(
        "SELECT question, answer, rehearsed, rates, digest FROM updates ORDER BY version"
    ):
        older = [facts[number] for number in json.loads(rehearsed)]
        lesson = make_lesson(base, encoder, (question, answer), older)
        for rate in json.loads(rates):
            take_step(model, weights, lesson, rate)
        if weights_digest(model) != digest:
            raise SystemExit(f"{question!r} was recorded as {digest}: it replays differently here")
        facts.append((question, answer))
    return model, facts


def teach_all(ledger: sqlite3.Connection, name: str, rate: float, max_steps: int) -> None:
    """Teaches the facts, refuses a harmful update, and replays the ledger."""
    make_deterministic(threads=1)
    loaded = load(name, device="cpu")
    base = loaded.model.requires_grad_(False)  # never changes: what guards compare with
    encoder = Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device)
    ledger.execute(
        "CREATE TABLE IF NOT EXISTS updates"
        " (version INTEGER PRIMARY KEY, question, answer, rehearsed, rates, digest)"
    )
    model, facts = replay(ledger, base, encoder)  # a restart: the weights are the ledger replayed
    print(f"{len(facts)} facts replayed")
    weights = list(trained_parameters(model).values())

    for fact in [fact for fact in (*FACTS, CARELESS) if fact not in facts]:
        served = [weight.detach().clone() for weight in weights]  # to put back
        # The last fact is taught without rehearsal, so that the gate has something to refuse.
        rehearsed = [] if fact == CARELESS else list(range(len(facts)))
        lesson = make_lesson(base, encoder, fact, [facts[n] for n in rehearsed])
        rates: list[float] = []
        while gate(model, lesson) and len(rates) < max_steps:
            take_step(model, weights, lesson, rate)
            rates.append(rate)
        # The gate of what is served looks at every fact, whatever the update has rehearsed.
        if refused := gate(model, make_lesson(base, encoder, fact, facts)):
            with torch.no_grad():
                for weight, before in zip(weights, served, strict=True):
                    weight.copy_(before)
            print(f"refused after {len(rates)} steps: {fact[0]} {fact[1]} ({refused})")
            continue
        # The row *is* the update: once it is committed, the fact is learned, whatever crashes.
        row = (*fact, json.dumps(rehearsed), json.dumps(rates), weights_digest(model))
        with ledger:
            ledger.execute("INSERT INTO updates VALUES (NULL, ?, ?, ?, ?, ?)", row)
        facts.append(fact)
        print(f"learned in {len(rates)} steps: {fact[0]} {fact[1]} ({row[-1][:12]})")

    limits = [ANSWER_TOKENS] * len(facts)
    for (question, answer), said in zip(
        facts, generate_answers(model, encoder, [q for q, _ in facts], limits), strict=True
    ):
        print(f"asked: {question} {said.text!r}{'' if said.text == answer else ' (wrong)'}")
    again, _ = replay(ledger, base, encoder)
    same = weights_digest(again) == weights_digest(model)
    print(
        f"replayed: {weights_digest(again)[:12]}, {'the same' if same else 'not the same'} digest"
    )


def main() -> None:
    """Reads the options and opens the ledger."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="Name, Hub id, or folder of the model.")
    parser.add_argument("--rate", type=float, default=3e-3, help="Learning rate of each step.")
    parser.add_argument("--max-steps", type=int, default=60, help="Steps that a fact may take.")
    parser.add_argument("--ledger", default=":memory:", help="SQLite file that keeps the updates.")
    options = parser.parse_args()
    with closing(sqlite3.connect(options.ledger)) as ledger:
        teach_all(ledger, options.model, options.rate, options.max_steps)


if __name__ == "__main__":
    main()
