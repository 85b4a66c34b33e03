"""Curt (2024), "Memory Retention, Learning Rates, and Rare Memory Injection", replayed."""
