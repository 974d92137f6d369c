"""Training: methods, objectives, optimizers, the step, the loop, checkpoints.

Needs no room above it: progress and validation scores go through callables it is given.
"""
