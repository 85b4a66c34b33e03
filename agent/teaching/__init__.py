"""How a fact is taught, from the plan of its lesson on. No database, no network."""
