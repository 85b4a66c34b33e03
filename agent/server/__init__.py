"""The server: the gRPC API, the learning loop, the data folder, the link to the learner."""
