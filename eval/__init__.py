"""Suites, their reports, and benchmarks. Only the command line imports them, when needed."""
