"""The laboratory: metrics, suites and reports. Only the command line imports it, when asked."""
