"""The data folder: who holds it, whose it is, its backups and upgrades."""
