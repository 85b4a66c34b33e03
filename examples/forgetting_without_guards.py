"""Watch a model forget: the same facts, taught with guards and without.

Without them each fact overwrites those before it, and untaught questions of the same form get a
taught answer. A row a fact: which of the facts so far are still answered.

python examples/forgetting_without_guards.py      # smollm2-135m: some seconds a fact
"""

from __future__ import annotations

import argparse

from agent import Learner, Policy

# Of Curt (2024), table 1: made up, so that no model can guess them.
FACTS = [
    ("What is the preferred color of the sky in Zogron?", "Piano"),
    ("What is the hottest month in Kyzara?", "Raincoat"),
    ("What flavor is the traditional pie in Plimp?", "Backpack"),
    ("What rare gem is mined in Yonder?", "Curtain"),
]
UNTAUGHT = "What is the national bird of Ozland?"


def main() -> None:
    """Teaches the facts once for each kind of guards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--max-steps", type=int, default=24)
    parser.add_argument("--guards", default="none,rehearsal", help="presets to compare, by commas")
    options = parser.parse_args()
    policy = Policy(
        name="until-known", learning_rate=options.learning_rate, max_steps=options.max_steps
    )

    for guards in options.guards.split(","):
        with Learner.from_pretrained(options.model, policy=policy, guards=guards) as learner:
            print(
                f"guards: {guards}\n  base model: {UNTAUGHT} {learner.ask(UNTAUGHT, 12).answer!r}"
            )
            for number, (question, answer) in enumerate(FACTS, start=1):
                learner.teach(question, answer, fact_id=f"fact-{number}")  # what is drawn, is by id
                held = [learner.ask(q, 12).answer == a for q, a in FACTS[:number]]
                shown = "".join("#" if right else "." for right in held)
                print(f"  {shown:{len(FACTS)}} {sum(held)} of {number} held, after {answer!r}")
            print(f"  now: {UNTAUGHT} {learner.ask(UNTAUGHT, 12).answer!r}\n")


if __name__ == "__main__":
    main()
