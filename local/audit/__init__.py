"""The audit trail on the command line: shown, and checked."""
