"""What `agent doctor` checks: whether this machine can serve, and what to do if it cannot.

Each check is a function of its own that returns what it found. None changes anything.
"""
