"""Benchmarks: what the agent costs and how close it comes to what its model allows. Never deployed."""
