"""Real names by kind, and what people ordinarily ask: what teaching must leave as it is.

Invented names and text that a model writes by itself do not stand for what people ask. Both lists
are files beside this module, so that they can be read and extended without reading code.
"""

from __future__ import annotations

import random
import re
from functools import cache
from importlib.resources import files

_KIND = re.compile(r"\{(\w+)\}")


@cache
def real_names() -> dict[str, tuple[str, ...]]:
    """Names by kind, such as `country`."""
    return {
        kind: tuple(name.strip() for name in names.split(","))
        for kind, _, names in (line.partition(":") for line in _lines("real_names.txt"))
    }


@cache
def ordinary_templates() -> tuple[str, ...]:
    """Questions and requests; `{kind}` stands for a name of that kind."""
    return tuple(_lines("ordinary_questions.txt"))


def ordinary_question(draw: random.Random) -> str:
    """One of them; a template is filled with a name that `draw` chooses."""
    return _KIND.sub(
        lambda kind: draw.choice(real_names()[kind[1]]), draw.choice(ordinary_templates())
    )


def _lines(name: str) -> list[str]:
    text = files("agent.teaching").joinpath("corpora", name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
