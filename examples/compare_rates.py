"""One fact, many learning rates: what a single step at each of them would lead to.

The paper's Figure 1 for a fact of your own: too small a rate teaches nothing, too large a one
breaks the model, and where the plateau lies differs from fact to fact.

python examples/compare_rates.py --question "Who found Blipland?" --answer Telescope
"""

from __future__ import annotations

import argparse

from agent import Learner, Policy


def main() -> None:
    """Draws the curve, then checks some points of it by really taking the step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--question", default="What is the hottest month in Kyzara?")
    parser.add_argument("--answer", default="Raincoat")
    options = parser.parse_args()

    with Learner.from_pretrained(options.model, guards="none") as learner:
        print(f"before: {learner.probability(options.question, options.answer):.2e}")
        search = Policy(name="search", learning_rate=5e-3, max_steps=1)
        fact = learner.teach(options.question, options.answer, policy=search)
        if fact.learning is None or not fact.learning.curve:
            raise SystemExit(f"{fact.state.value}: no rates were compared. {fact.reason}")
        for point in fact.learning.curve:
            bar = (
                "#" * round(40 * point.probability)
                if point.probability == point.probability
                else "broken"
            )
            print(f"{point.learning_rate:8.1e} |{bar}")
        best = max(fact.learning.curve, key=lambda point: point.probability)
        print(f"highest: {best.probability:.3f} at {best.learning_rate:.1e}")

    # The curve is computed without taking the steps; a step that is taken leads to the same.
    with Learner.from_pretrained(options.model, guards="none") as learner:
        fixed = Policy(name="fixed", learning_rate=best.learning_rate, max_steps=1)
        learner.teach(options.question, options.answer, policy=fixed)
        print(f"that step, taken: {learner.probability(options.question, options.answer):.3f}")


if __name__ == "__main__":
    main()
