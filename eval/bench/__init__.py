"""Benchmarks: each compares the current code with a baseline on the same machine."""
