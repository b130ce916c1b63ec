"""Mailbox profiles: what an operator writes about each mailbox."""
