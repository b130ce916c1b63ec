"""What people are told: the commands about what waits for them, and the demo's channel."""
