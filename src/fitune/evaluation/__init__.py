"""How well rows were answered, and how sure that is: metrics and significance.

Knows predictions and references as strings; knows nothing of approaches, models or files.
"""
