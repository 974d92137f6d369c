"""Models: where they come from, what they are, how they are loaded. Knows nothing of tasks."""
