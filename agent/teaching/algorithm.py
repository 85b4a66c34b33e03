"""The names of the procedures that change weights, for those who do not import torch."""

# Name and version of the procedure. A ledger row can be replayed only by the procedure that made
# it: raise the version with every change that alters a weight.
ALGORITHM = "answer-adamw/4"
# The same, of a lesson from which rows were left out because they were too long (`guards.fitting`).
# Rows of the ledger from before that rule hold such lessons whole, and are replayed so.
BOUNDED = f"{ALGORITHM}+bounded"
REPLAYED = frozenset({ALGORITHM, BOUNDED})
# Likewise, of learning all facts together from the base weights.
CONSOLIDATION = "consolidation-adamw/1"
