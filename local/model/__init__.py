"""A simulated chat-completions service."""
