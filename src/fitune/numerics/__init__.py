"""Numerics: what a number becomes in fewer bits. Knows formats; knows nothing of models."""
