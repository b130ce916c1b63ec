"""Attachments: fetched, read in a child process within limits, and shown as what the sender wrote."""
