"""Microsoft's own Python worker, driven from the tests."""
