"""Chaos: every fault at every outside call of the agent, and what must be true whatever happened."""
