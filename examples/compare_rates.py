"""One fact, many learning rates: what a single step at each of them would lead to.

The paper's Figure 1 for a fact of your own: too small a rate teaches nothing, too large a one
breaks the model, and where the plateau lies differs from fact to fact.

python examples/compare_rates.py --question "Who found Blipland?" --answer Telescope
"""

from __future__ import annotations

import argparse
import math

from agent import Learner, Policy

# What an update draws (which words of the question it leaves out, ...) it draws by the fact's id.
FACT_ID = "the-fact"


def bar(probability: float) -> str:
    """Three columns a power of ten, from 1e-16 on; NaN is a model that broke."""
    if math.isnan(probability):
        return "broken"
    return "#" * max(0, round(3 * (16 + math.log10(max(probability, 1e-16)))))


def main() -> None:
    """Draws the curve, then checks some points of it by really taking the step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--question", default="What rare gem is mined in Yonder?")
    parser.add_argument("--answer", default="Curtain")
    options = parser.parse_args()

    with Learner.from_pretrained(options.model, guards="none") as learner:
        print(f"before: {learner.probability(options.question, options.answer):.2e}")
        search = Policy(name="search", learning_rate=5e-3, max_steps=1)
        fact = learner.teach(options.question, options.answer, policy=search, fact_id=FACT_ID)
        if fact.learning is None or not fact.learning.curve:
            raise SystemExit(f"{fact.state.value}: no rates were compared. {fact.reason}")
        print("rate     probability after one step, on a logarithmic scale")
        for point in fact.learning.curve:
            print(f"{point.learning_rate:.1e}  {point.probability:.2e} |{bar(point.probability)}")
        best = max(fact.learning.curve, key=lambda point: point.probability)
        print(f"highest: {best.probability:.3f} at {best.learning_rate:.1e}")

    # The curve is computed without taking the steps; a step that is taken leads to the same.
    with Learner.from_pretrained(options.model, guards="none") as learner:
        fixed = Policy(name="fixed", learning_rate=best.learning_rate, max_steps=1)
        learner.teach(options.question, options.answer, policy=fixed, fact_id=FACT_ID)
        print(f"that step, taken: {learner.probability(options.question, options.answer):.3f}")


if __name__ == "__main__":
    main()
