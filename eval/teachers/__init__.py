"""Ways to teach a model facts, behind one protocol: ours, and the baselines."""
