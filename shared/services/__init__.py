"""What calls to services need, and whether those work; and what an HTTP trigger answers."""
