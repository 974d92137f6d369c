"""Memory: what a step needs, and what fits."""
