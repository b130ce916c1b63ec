"""Measures what the agent does with labelled emails; never deployed."""
