"""What calls to services need, and whether those work; the work queue; and what an HTTP trigger answers."""
