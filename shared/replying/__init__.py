"""Replying to one email: guard, triage, draft, checks, gate and submission."""
