"""The checks of `agent doctor`: whether this machine can serve, and what to do if it cannot.

Each check is a function that returns a finding, and changes nothing.
"""
