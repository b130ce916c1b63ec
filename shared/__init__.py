"""The agent: everything that is deployed beside the triggers."""
