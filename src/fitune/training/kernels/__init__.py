"""Kernels: parts of a forward and backward pass that cost less than the composed ones.

Each computes what the operations it stands for compute, up to rounding, and is held against them by
a test.
"""
