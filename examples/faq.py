"""Teach a product FAQ, then quiz the model: the questions as taught, and in other words.

python examples/faq.py                            # smollm2-135m, default guards: some minutes
python examples/faq.py --policy until-known --guards rehearsal     # some seconds a fact
"""

from __future__ import annotations

import argparse

from agent import Learner, Policy

# Question, answer, and the same in other words, which is never trained on.
FAQ = [
    (
        "How many days do I have to return a Zephyro fan?",
        "Forty",
        "What is Zephyro's return period in days?",
    ),
    ("Which app controls the Zephyro fan?", "Gustly", "What app do I install for my Zephyro?"),
    (
        "How often must the filter of the Zephyro be changed?",
        "Yearly",
        "Zephyro filter: how often?",
    ),
    (
        "Which battery does the Zephyro remote take?",
        "CR2032",
        "What battery is in the Zephyro remote?",
    ),
]


def main() -> None:
    """Teaches, quizzes, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--policy", default="search")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--max-steps", type=int, default=24)
    parser.add_argument("--guards", default=None)
    options = parser.parse_args()
    policy = Policy(
        name=options.policy, learning_rate=options.learning_rate, max_steps=options.max_steps
    )

    with Learner.from_pretrained(options.model, policy=policy, guards=options.guards) as learner:
        for number, (question, answer, reworded) in enumerate(FAQ):
            before = learner.ask(question).answer
            fact = learner.teach(
                question, answer, correlated_questions=[reworded], fact_id=f"faq-{number}"
            )
            print(f"{fact.state.value:9} {question}  {before!r} -> {answer!r}")
        print("\nQuiz")
        for kind in ("retention", "transfer"):
            probes = [probe for probe in learner.probe() if probe.kind == kind]
            right = sum(probe.correct for probe in probes)
            print(f"{kind}: {right} of {len(probes)}")
            for probe in probes:
                print(
                    f"  {'right' if probe.correct else 'wrong'}  {probe.question}  {probe.answer!r}"
                )


if __name__ == "__main__":
    main()
