"""Mail: MultiMail's REST API, and what code reads from an email or a draft by itself."""
