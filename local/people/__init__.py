"""Commands about what waits for people."""
