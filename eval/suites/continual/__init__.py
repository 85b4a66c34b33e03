"""Suite `continual`: fictional facts, taught one by one."""
