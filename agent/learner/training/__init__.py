"""Gradient steps: what they are taken on, at which rate, and when they end."""
