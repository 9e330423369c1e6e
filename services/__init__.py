"""The service processes; they speak gRPC to each other and never import one another."""
