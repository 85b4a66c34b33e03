"""When things happen: the learning loop, and the ticks of the clock."""
