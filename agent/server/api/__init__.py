"""The gRPC API: servicers, health, events, questions."""
