"""Rows: where they come from, how they are split, and what may be wrong with them.

Knows files, shapes and content hashes; knows nothing of models. `load` is the way in.
"""
