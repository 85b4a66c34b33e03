"""What no crash, disk or clock may break; `make faults` runs all of it, with a table at the end."""
