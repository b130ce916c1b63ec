"""The work queue: it only says which ledger row to look at."""
