"""The agent: everything that is deployed besides the triggers."""
