"""Checks: what code says about a draft before a person sees it."""
