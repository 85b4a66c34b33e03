"""Forget, rollback and erase: from the request to the last trace that is removed."""
