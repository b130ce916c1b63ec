"""The Functions host on one machine."""
