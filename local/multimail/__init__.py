"""A simulated MultiMail account behind its real HTTP API."""
