"""The gRPC face: servicers, the error table, the client, and the link to the learner."""
