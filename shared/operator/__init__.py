"""What operators ask for: questions, and the trust report."""
