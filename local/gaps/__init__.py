"""What the agent could not answer, and what people said instead: passages and profile lines to add."""
