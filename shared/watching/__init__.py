"""Watching MultiMail: polling for new email, webhooks, and what became of each reply."""
