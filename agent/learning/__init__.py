"""The learning itself: model, update, rates, probes. Pure torch: no database, no gRPC."""
