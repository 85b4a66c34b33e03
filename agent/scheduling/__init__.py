"""When things happen: the learning loop, driven by the queue, and the ticks of the clock."""
