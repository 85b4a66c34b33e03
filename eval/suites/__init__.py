"""The suites of `agent eval`: what each one teaches, measures and writes."""
