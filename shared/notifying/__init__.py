"""Notifying people: what waits for a person, sent to Teams, Slack or any HTTPS endpoint."""
