"""Models on paper: what a month costs and how much mail a deployment carries, from counts and published limits."""
