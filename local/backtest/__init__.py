"""Backtests: what the agent would say to past mail, under today's configuration and under another."""
