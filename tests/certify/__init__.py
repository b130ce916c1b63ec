"""Hostile mail in front of a careless model: what the real pipeline and the real `ask` let through."""
