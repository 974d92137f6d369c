"""From answered test rows to a table and a recommendation.

Knows rungs and their figures; knows nothing of how an approach works.
"""
