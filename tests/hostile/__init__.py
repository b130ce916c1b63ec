"""Hostile mail as data: attacks, benign look-alikes, a model that obeys every order, and what was counted."""
