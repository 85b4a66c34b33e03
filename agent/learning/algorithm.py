"""The name of the update procedure, for those who do not import torch."""

# Name and version of the procedure. A ledger row can be replayed only by the procedure that made
# it: raise the version with every change that alters a weight.
ALGORITHM = "answer-adamw/4"
