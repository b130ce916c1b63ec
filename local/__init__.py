"""Run the agent on one machine: never deployed."""
