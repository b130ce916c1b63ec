"""How a mailbox writes, from its own sent emails: measures and words of our own, none of theirs."""
