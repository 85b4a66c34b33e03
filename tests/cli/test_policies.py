"""Words of the command line for what happens after an update."""

from __future__ import annotations

import pytest

from agent.cli.policies import chosen_samples, complete_guards, complete_policy
from agent.errors import ConfigError


@pytest.mark.parametrize(
    ("probes", "samples"), [("exact", 0), ("paper", 80), ("paper:1", 1), ("paper:800", 800)]
)
def test_probes_are_exact_or_as_in_the_paper(probes: str, samples: int) -> None:
    assert chosen_samples(probes) == samples


@pytest.mark.parametrize(
    "probes", ["", "Paper", "papers", "paper:", "paper:x", "paper:-1", "paper:8:0", "exact:3"]
)
def test_other_words_are_refused_with_those_that_are_right(probes: str) -> None:
    with pytest.raises(ConfigError, match="use exact, paper or paper:SAMPLES"):
        chosen_samples(probes)


@pytest.mark.parametrize("probes", ["paper:0", "paper:100001"])
def test_a_number_out_of_range_is_refused(probes: str) -> None:
    with pytest.raises(ConfigError, match="choose 1 to 100000"):
        chosen_samples(probes)


def test_the_shell_is_offered_the_names_that_fit():
    assert complete_policy("p") == ["paper", "predicted"]
    assert complete_guards("") == ["auto", "full", "light", "rehearsal", "none"]
    assert complete_guards("x") == []
