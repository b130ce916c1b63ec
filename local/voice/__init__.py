"""A description of how a mailbox writes, from its own sent emails: measures and our own words, none of theirs."""
