"""What operators and reviewers ask for: the desk's list, questions, the trust report, the observed page."""
