"""How much an update is guarded, by name, and what the gate lets pass.

Without torch: for the server and the command line.
"""

from __future__ import annotations

from agent.teaching.rates import UNTIL_LEARNED
from memory_store.vocabulary import Guards, Policy

# On a GPU a fact takes well under a second with `FULL`; `LIGHT` is what two CPU cores can bear.
FULL = Guards(candidates=64, rehearsed=24, neighbours=24, controls=8, texts=8)
LIGHT = Guards(candidates=16, rehearsed=6, neighbours=6, controls=2, texts=1)
REHEARSAL = Guards(candidates=16, rehearsed=16)
NONE = Guards()
PRESETS = {"full": FULL, "light": LIGHT, "rehearsal": REHEARSAL, "none": NONE}
# What the gate lets pass, judged row by row. Greedy generation leaks from about 0.5 on.
LEAK_PROBABILITY = 0.3
# Nats a token.
TEXT_DIVERGENCE = 0.25
# Of older facts that are probed after each update, at least.
PROBED = 16
# What the gate looks at where a policy's own guards do not: see `Policy.gated`.
GATE = Guards(candidates=PROBED, controls=8, texts=2)


def judged_by_its_lesson(policy: Policy) -> bool:
    """Whether the rows that a policy learns from show all that the gate asks for."""
    guards = policy.guards or NONE
    return policy.name in UNTIL_LEARNED and guards.controls > 0 and guards.texts > 0


def compared_facts(policy: Policy) -> int:
    """How many older facts an update may not lose."""
    own = policy.guards.candidates if policy.guards else 0
    return max(own, GATE.candidates) if policy.gated else own


def older_facts(policy: Policy) -> int:
    """How many older facts accompany a fact."""
    return max(PROBED, policy.guards.candidates if policy.guards else 0)
