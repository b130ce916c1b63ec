"""The ledger: what is known of each email, and the stores that keep it."""
