"""Quantization: converts weights and key-value caches to fewer bits; does not judge the result."""
