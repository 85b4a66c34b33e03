"""Suites `zsre` and `counterfact`: the data sets of knowledge editing."""
