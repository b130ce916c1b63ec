"""Chat models: requests, prompts, and the two SDKs that carry them."""
