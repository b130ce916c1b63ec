"""MultiMail: its REST API, the account's mailboxes, and the secrets that open them."""
