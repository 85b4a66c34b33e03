"""The learner process: one model on one device, taught one fact at a time."""
