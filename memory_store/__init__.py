"""The durable memory: facts, the ledger of updates, probes and events, in SQLite.

Imports neither torch nor grpc, and nothing else of this project.
"""
