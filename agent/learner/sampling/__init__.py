"""How often an answer occurs in sampled texts, as the paper measures it."""
